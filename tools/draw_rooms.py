"""Draws the rooms of src/helpers as docs/rooms.svg: their files, and which room imports which.

python tools/draw_rooms.py          writes the drawing
python tools/draw_rooms.py --check  exits 1 when the drawing is not the code's
"""

import ast
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HELPERS, DRAWING = ROOT / "src" / "helpers", ROOT / "docs" / "rooms.svg"
FLOORS = [  # from the top; a room imports only rooms on lower floors, and those that an arrow shows
    ["__main__", "runner", "kaggle"],
    ["preflight", "calibrate", "options"],
    ["training", "search", "preference", "evaluation", "inference", "sharing", "reporting"],
    ["planning"],
    ["models"],
    ["data"],
    ["language"],
    ["runs"],
    ["platforms"],
]
WIDTH, GAP, LINE, SIDES = 1160, 14, 17, 60  # pixels; SIDES: room for the arrows between rooms of one floor


def room_of(path: Path) -> str:
    """Returns the room that a file belongs to: its folder, or itself where it stands beside the rooms."""
    parts = path.relative_to(HELPERS).parts
    return parts[0] if len(parts) > 1 else path.stem


def files_of(room: str) -> list[Path]:
    """Returns the Python files of a room, without its __init__.py."""
    return sorted(p for p in HELPERS.rglob("*.py") if room_of(p) == room and p.stem != "__init__")


def imported_rooms(room: str) -> set[str]:
    """Returns the rooms that a room's files import, functions included."""
    rooms = set()
    for path in files_of(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers."):
                rooms.add(str(node.module).split(".")[1])
    return rooms - {room}


def purpose(room: str) -> str:
    """Returns the first sentence of a room's docstring."""
    folder = HELPERS / room
    path = folder / "__init__.py" if folder.is_dir() else HELPERS / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return (docstring or "").split("\n")[0]


def wrapped(words: list[str], width: float, joined: str) -> list[str]:
    """Returns words as lines of at most so many pixels, at about 7 pixels per character."""
    lines = [""]
    for word in words:
        longer = f"{lines[-1]}{joined}{word}" if lines[-1] else word
        if lines[-1] and len(longer) * 6.6 > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def draw() -> str:
    """Returns the drawing as SVG."""
    boxes, shapes, top = {}, [], GAP
    for floor in FLOORS:
        width = (WIDTH - GAP * (len(floor) + 1)) / len(floor)
        texts = {
            room: [
                *wrapped(purpose(room).split(" "), width - 20, " "),
                *wrapped([path.stem for path in files_of(room) if path.stem != room], width - 20, " · "),
            ]
            for room in floor
        }
        height = LINE * (max(map(len, texts.values())) + 1) + 18
        for place, room in enumerate(floor):
            left = GAP + place * (width + GAP)
            boxes[room] = (left, top, width, height)
            shapes.append(f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="6"/>')
            shapes.append(f'<text class="name" x="{left + 10:.0f}" y="{top + 22}">{room}</text>')
            for number, line in enumerate(texts[room], start=1):
                shapes.append(f'<text x="{left + 10:.0f}" y="{top + 22 + number * LINE}">{escape(line)}</text>')
        sideways = [(room, other) for room in floor for other in sorted(imported_rooms(room)) if other in floor]
        for number, (room, other) in enumerate(sideways):
            (a, y, w, h), (b, _, v, _) = boxes[room], boxes[other]
            start, end, low = a + w / 2 + 6 * number, b + v / 2 + 6 * number, y + h + 12 + 10 * number
            shapes.append(f'<path d="M{start:.0f} {y + h} V{low} H{end:.0f} V{y + h + 3}"/>')
        top += height + GAP + (10 * len(sideways) + 16 if sideways else 0)
    style = (
        "text{font:12px sans-serif;fill:#222}.name{font-weight:bold;font-size:14px}rect{fill:#f4f6f8;stroke:#7a8794}"
        "path{fill:none;stroke:#0058a3;marker-end:url(#tip)}"
    )
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
    tip += '<path d="M0 0 L6 3 L0 6" style="marker-end:none"/></marker>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">'
    title = "<title>The rooms of src/helpers, upper floors first; arrows: imports within a floor</title>"
    return "\n".join([head, title, f"<style>{style}</style>", f"<defs>{tip}</defs>", *shapes, "</svg>"]) + "\n"


def main(check: bool) -> int:
    """Writes the drawing, or with `check` compares it; returns the exit code."""
    missing = {room_of(path) for path in HELPERS.rglob("*.py") if path.parent != HELPERS} - set().union(*FLOORS)
    if missing:
        print(f"tools/draw_rooms.py: FLOORS lacks {', '.join(sorted(missing))}")
        return 1
    drawing = draw()
    if check and (not DRAWING.is_file() or DRAWING.read_text(encoding="utf-8") != drawing):
        print("docs/rooms.svg is not the code's: run python tools/draw_rooms.py")
        return 1
    if not check:
        DRAWING.write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
