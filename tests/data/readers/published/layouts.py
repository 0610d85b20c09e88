"""Small data sets in exactly the layout of the published ones: names of folders and files, formats and encodings."""

import json
from pathlib import Path

from tests.conftest import png

ZAPPOS_COLUMNS = ("Category.Shoes", "Category.Boots", "SubCategory.Oxfords", "SubCategory.Ankle", "HeelHeight.Flat",
                  "Closure.Lace.up", "Gender.Men", "Material.Leather")  # fmt: skip
ZAPPOS_SHOES = {
    "100627-72": ("Shoes/Oxfords/Bostonian", (1, 0, 1, 0, 1, 1, 1, 1)),
    "100627-255": ("Shoes/Oxfords/Bostonian", (1, 0, 1, 0, 0, 1, 1, 1)),
    "7965488-3": ("Boots/Ankle/L.B. Evans", (0, 1, 0, 1, 0, 0, 1, 0)),
    "7965489-1": ("Boots/Ankle/Levi's® Kids", (0, 1, 0, 1, 0, 1, 0, 0)),
    "7965490-9": ("Slippers/Slipper Flats/Acorn", (0, 0, 0, 0, 1, 0, 0, 0)),
}
"""CID: folder below the images, and the binary columns."""


def write_zappos(root: Path) -> Path:
    """Five shoes of three classes, with 4 attributes beside the 4 columns on the class."""
    data = root / "ut-zap50k-data"
    data.mkdir(parents=True)
    lines = [",".join(("CID", *ZAPPOS_COLUMNS))]
    for number, (cid, (folder, values)) in enumerate(ZAPPOS_SHOES.items()):
        place = root / "ut-zap50k-images-square" / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{cid.replace('-', '.')}.jpg").write_bytes(png(number, size=12))
        lines.append(",".join((cid, *map(str, values))))
    (data / "meta-data-bin.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (data / "meta-data.csv").write_text("CID,Category,SubCategory\n100627-72,Shoes,Oxfords\n", encoding="utf-8")
    return root


CUB_CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")
CUB_ATTRIBUTES = ("has_bill_shape::curved_(up_or_down)", "has_bill_shape::dagger", "has_wing_color::blue")


def write_cub(root: Path) -> Path:
    """Six birds of the species 1, 2 and 200, with three attributes; some lines of the marks are malformed."""
    folder = root / "CUB_200_2011"
    (folder / "attributes").mkdir(parents=True)
    (root / "attributes.txt").write_text(
        "".join(f"{i} {name}\n" for i, name in enumerate(CUB_ATTRIBUTES, start=1)), encoding="utf-8"
    )
    numbers = (1, 2, 200)
    names = [f"{CUB_CLASSES[i % 3]}/Bird_{i:04d}_{i * 7}.jpg" for i in range(6)]
    for i, name in enumerate(names):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(png(i, size=10 + i))
    lines = {
        "images.txt": [f"{i} {name}" for i, name in enumerate(names, start=1)],
        "classes.txt": [f"{number} {name}" for number, name in zip(numbers, CUB_CLASSES, strict=True)],
        "image_class_labels.txt": [f"{i} {numbers[(i - 1) % 3]}" for i in range(1, 7)],
        "train_test_split.txt": [f"{i} {int(i <= 4)}" for i in range(1, 7)],
        "attributes/certainties.txt": ["1 not visible", "2 guessing", "3 probably", "4 definitely"],
    }
    marks = [f"{i} {a} {(i + a) % 2} {1 + (i * a) % 4} {i * 1.5}" for i in range(1, 7) for a in (1, 2, 3)]
    marks[4] += " 0 27.708"  # further fields, as some lines of the published file have
    del marks[8]  # image 3, attribute 3 has no mark
    marks.append("9 1 1 3 1.0")  # an image that is not there
    lines["attributes/image_attribute_labels.txt"] = marks
    for name, text in lines.items():
        (folder / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    return root


WIDER_ATTRIBUTES = ("Male", "longHair", "sunglass")


def write_wider(root: Path) -> Path:
    """Five scenes: three for training, one of them with nobody in it, and two for testing."""
    maps = {
        "attribute_id_map": {str(i): name for i, name in enumerate(WIDER_ATTRIBUTES)},
        "scene_id_map": {"0": "Parade", "17": "Ceremony"},
    }
    images = {
        "wider_attribute_trainval.json": [
            ("train/0--Parade/0_Parade_1.jpg", 0, [[1, -1, 0], [-1, -1, 1]]),
            ("train/17--Ceremony/17_Ceremony_2.jpg", 17, []),
            ("val/0--Parade/0_Parade_3.jpg", 0, [[-1, 1, -1]]),
        ],
        "wider_attribute_test.json": [
            ("test/17--Ceremony/17_Ceremony_4.jpg", 17, [[1, 1, 1]]),
            ("test/0--Parade/0_Parade_5.jpg", 0, [[0, 0, 0]]),
        ],
    }
    for number, (file, rows) in enumerate(images.items()):
        tree = {
            "images": [
                {
                    "file_name": name,
                    "scene_id": scene,
                    "targets": [{"bbox": [1, 2, 3, 4], "attribute": box} for box in boxes],
                }
                for name, scene, boxes in rows
            ],
            **maps,
        }
        root.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(json.dumps(tree), encoding="utf-8")
        for i, (name, _, _) in enumerate(rows):
            path = root / "Image" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(10 * number + i, size=16))
    return root


IMAGENET_CLASSES = ("n01496331", "n02117135", "n04612504")


def write_imagenet(root: Path) -> Path:
    """Three listed classes and one that is not, two training images and one validation image each."""
    for name in (*IMAGENET_CLASSES, "n00000001"):
        for split, count in (("train", 2), ("val", 1)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{name}_{i}.JPEG").write_bytes(png(i, size=20))
    (root / "classes.txt").write_text("\n".join(IMAGENET_CLASSES) + "\n", encoding="utf-8")
    return root
