"""What can be written, and how the names of such files end. Options read it, so nothing heavy is imported."""

from pathlib import Path

SUFFIXES = {"exr": ".exr", "hdr": ".hdr", "ultrahdr": ".ultrahdr.jpg", "avif": ".hdr.avif"}
"""Those of JPEG and AVIF differ from what a source can have, which may stand in the same directory."""

FILMS = ("hdr10", "hlg", "prores")
"""What a whole clip can be written as."""

FILM_SUFFIXES = (".mp4", ".mov", ".mkv")
"""How those end."""

SHOWN = ("ultrahdr", "avif", *FILMS)
"""Those that hold display light (`display_light`); the others hold scene-linear."""


def film_suffix(format: str, source: Path) -> str:
    """ ".hdr10.mp4" for players, ".prores.mov" for editors; Matroska stays Matroska, for its subtitles."""
    is_matroska = source.suffix.lower() in (".mkv", ".webm")
    return f".{format}" + (".mov" if format == "prores" else ".mkv" if is_matroska else ".mp4")
