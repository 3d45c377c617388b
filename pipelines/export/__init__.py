"""Export: pictures cut out, sized and written as the places want them where they go."""
