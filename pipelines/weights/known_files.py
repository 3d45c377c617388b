"""What is known of published files by their address: the SHA-256, the size, and where else the same bytes are.

The numbers are those of the publishers' own lists, or of programs that check what they download. Sizes that are known
only roundly are left out. A pinned file of a Hub is the same whatever its branch becomes.
"""

from __future__ import annotations

from pipelines.weights.checkpoint import File

HUB = "https://huggingface.co"
OPENAI = "https://openaipublic.azureedge.net/clip/models"
HEIBOX = "https://heibox.uni-heidelberg.de/f"
# Copies of OpenAI's CLIPs and of VQGANs, kept by two continuations of PyTTI.
STORAGE = "https://openaipublic.blob.core.windows.net/clip/models"
PYTTI = f"{HUB}/pxlpshr/pytti-models/resolve/main"
SOMNAI = f"{HUB}/Somnai/pytti-vqgan-checkpoints/resolve/debc22c8f285c7734980c464ff992d335dde6e9a"

CLIP_SIZES = {  # of OpenAI's files, whose addresses hold their SHA-256
    "ViT-B-32.pt": 353_976_522,
    "ViT-B-16.pt": 350_837_078,
    "ViT-L-14.pt": 932_768_134,
    "ViT-L-14-336px.pt": 934_088_680,
    "RN50.pt": 255_827_503,
    "RN101.pt": 291_791_292,
    "RN50x4.pt": 421_854_225,
    "RN50x16.pt": 661_125_706,
    "RN50x64.pt": 1_353_500_174,
}
PINS: dict[str, tuple[str, int | None]] = {  # address -> SHA-256 and bytes
    f"{HUB}/kuprel/min-dalle/resolve/main/encoder_mini.pt": (
        "158e1ff118b6e85c7b03577178758f94a24b6e1625e8f8ee6415fbde020b938b",
        405_201_458,
    ),
    f"{HUB}/kuprel/min-dalle/resolve/main/decoder_mini.pt": (
        "f8343c2bf982cb60d463417facc4debeeaabc9f238a1f7115ac5bdf778ea3901",
        470_515_674,
    ),
    f"{HUB}/kuprel/min-dalle/resolve/main/encoder.pt": (
        "76e7797b19625122e21138556e06b78cc84686ed5f5e5c42aa53c81ffb2f4bb8",
        2_220_079_602,
    ),
    f"{HUB}/kuprel/min-dalle/resolve/main/decoder.pt": (
        "fc94a4dff25b97575239eb21e1ae3d988beff95470fec9903d5dcad521ab9efa",
        2_955_054_938,
    ),
    f"{HUB}/dalle-mini/dalle-mini/resolve/main/flax_model.msgpack": (
        "df70127fbf804aaec7b9eeb54bc123283405ea74e5047bede4986638a384951a",
        None,
    ),
    f"{HUB}/dalle-mini/vqgan_imagenet_f16_16384/resolve/main/flax_model.msgpack": (
        "5ef1a8f63877e450b2616169dcd1ab8f7b8a5eb95160549a1805e9e4511caa93",
        None,
    ),
    f"{HUB}/ai-forever/rudalle-Malevich/resolve/main/pytorch_model_v3.bin": (
        "ed4f655621c430b82d80cefecd654c547809d219a625550b3806846c2c6cb7d7",
        None,
    ),
    f"{HUB}/shonenkov/rudalle-utils/resolve/main/bpe.model": (
        "c5dcee5d7e0fa74f48d493791484232850e25230eb8b04dbd527afe008b9482e",
        224_498,
    ),
    f"{HUB}/shonenkov/rudalle-utils/resolve/main/vqgan.gumbelf8-sber.model.ckpt": (
        "7be00096299fe50bbcc1a2ed01fe28561464de5020c7c6b5b4a728d3b515c3fb",
        None,
    ),
    f"{HUB}/OFA-Sys/chinese-clip-vit-base-patch16/resolve/main/pytorch_model.bin": (
        "7b7b583c210c867410bc6bdb8a55fe14eec62999e0a9ea31ff222dc501f9cfbe",
        None,
    ),
    f"{HUB}/OFA-Sys/chinese-clip-vit-base-patch16/resolve/main/vocab.txt": (
        "45bbac6b341c319adc98a532532882e91a9cefc0329aa57bac9ae761c27b291c",
        109_540,
    ),
    f"{HUB}/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/open_clip_pytorch_model.bin": (
        "1bd3c7172de5b207ceac554f5ab5266166f3b9baccc9af5989bc801016d080ad",
        None,
    ),
    f"{HUB}/google/ddpm-ema-celebahq-256/resolve/main/diffusion_pytorch_model.bin": (
        "3ec1b462abd49605d4f7cddfe453626e9aea1edc8c2449450a1c054efb863abf",
        None,
    ),
    f"{HEIBOX}/867b05fc8c4841768640/?dl=1": (
        "845a68805098cb666420d5db93df53f3a3b6dd443e6dd85c05759c5b998cd663",
        980_092_370,
    ),
    f"{HEIBOX}/34a747d5765840b5a99d/?dl=1": (
        "5cd6c74810ab97e00e942c25403f73afc081e8b19987b31ec0d9ff5b68e7ab14",
        376_581_823,
    ),
}
FOLDERS: dict[
    str, dict[str, tuple[str, int | None]]
] = {  # repository of the Hub -> path -> SHA-256 and bytes
    "black-forest-labs/FLUX.2-klein-4B": {
        "transformer/diffusion_pytorch_model.safetensors": (
            "9f29f9edcfdae452a653ffb51a534ca4decd389952c225724ff3b94042612a6e",
            7_751_109_744,
        ),
        "text_encoder/model-00001-of-00002.safetensors": (
            "8c0506e7f4936fa7e26183a4fd8da4e2bdbc5990ba64ae441f965d51228f36ea",
            4_967_215_360,
        ),
        "text_encoder/model-00002-of-00002.safetensors": (
            "82f2bd839378541b0557bfabaf37c7d3d637071fdcb73302dedd7cf61162ce07",
            3_077_766_632,
        ),
        "vae/diffusion_pytorch_model.safetensors": (
            "ca70d2202afe6415bdbcb8793ba8cd99fd159cfe6192381504d6c4d3036e0f04",
            168_120_878,
        ),
        "tokenizer/tokenizer.json": (
            "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
            11_422_654,
        ),
    },
    "Efficient-Large-Model/Sana_Sprint_0.6B_1024px_diffusers": {
        "transformer/diffusion_pytorch_model.safetensors": (
            "9069dd697395b96a59d1f74837461f7aeb3d95e55b67fa85c9f31c9106b65e87",
            1_187_078_584,
        ),
        "text_encoder/model-00001-of-00002.safetensors": (
            "e909230aabafad02d097c7dc02f2ae062b4e6b0593477c1f07679d277e09ce71",
            4_988_024_144,
        ),
        "text_encoder/model-00002-of-00002.safetensors": (
            "48e14f6b7a917e54cabc4ff2047ac2bfe0dae663e771eed3a8acf4ea27dcac18",
            240_691_624,
        ),
        "vae/diffusion_pytorch_model.safetensors": (
            "dfd991d1b54ffabf22745c5885589d8f2a7bc59930d95d92bd741c4fc64454bb",
            1_249_044_836,
        ),
        "tokenizer/tokenizer.json": (
            "5f7eee611703c5ce5d1eee32d9cdcfe465647b8aff0c1dfb3bed7ad7dbb05060",
            34_362_873,
        ),
    },
    "madebyollin/taesd": {
        "diffusion_pytorch_model.safetensors": (
            "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549",
            9_793_292,
        ),
    },
    "madebyollin/taef1": {
        "diffusion_pytorch_model.safetensors": (
            "47a6c2bff850da04b267cab70fe3553fef57255eb9a8e76852baa0a87850e54d",
            None,
        ),
    },
}
PINS.update(
    (f"{HUB}/{repository}/resolve/main/{path}", known_of)
    for repository, files in FOLDERS.items()
    for path, known_of in files.items()
)
MIRRORS: dict[str, tuple[str, ...]] = {  # address -> others of the same bytes
    f"{HEIBOX}/867b05fc8c4841768640/?dl=1": (
        f"{SOMNAI}/imagenet/imagenet.ckpt",
        f"{PYTTI}/vqgan/imagenet.ckpt",
    ),
    f"{HEIBOX}/34a747d5765840b5a99d/?dl=1": (
        f"{SOMNAI}/openimages/openimages.ckpt",
        f"{PYTTI}/vqgan/openimages.ckpt",
    ),
    f"{HUB}/shonenkov/rudalle-utils/resolve/main/bpe.model": (
        f"{HUB}/ai-forever/rudalle-utils/resolve/main/bpe.model",
    ),
    f"{HUB}/shonenkov/rudalle-utils/resolve/main/vqgan.gumbelf8-sber.model.ckpt": (
        f"{HUB}/ai-forever/rudalle-utils/resolve/main/vqgan.gumbelf8-sber.model.ckpt",
        f"{HUB}/ai-forever/Sber-VQGAN/resolve/main/vqgan.gumbelf8-sber.model.ckpt",
    ),
}


def known(url: str, name: str = "") -> File:
    """The file at an address with what is known of it. `name` is its path where the address does not end in one."""
    sha256, size = PINS.get(url, (None, None))
    return File(url, sha256, size, name, MIRRORS.get(url, ()))


def openai_clip(sha256: str, file: str) -> File:
    """One of OpenAI's CLIPs."""
    inside = f"{sha256}/{file}"
    mirrors = (f"{PYTTI}/clip/{inside}", f"{STORAGE}/{inside}")
    return File(f"{OPENAI}/{inside}", sha256, CLIP_SIZES[file], mirrors=mirrors)
