"""Chinese characters and measure words, for patterns."""

import re

HAN = "[\u4e00-\u9fff]"  # one character
MEASURES = (
    "只个條条头匹朵棵株辆架艘座栋间本张块杯碗瓶颗顶件双把位名支枝根盘片台部"  # between a number and a noun
)
A = re.compile(f"^一[{MEASURES}](?={HAN})")  # "a" before a noun, at the beginning
