"""Archives that nobody should be sent: a grammar over the members of a tar file."""

import functools
import gzip
import zlib
from random import Random

from mutations import EXTREMES, spoil

BLOCK = 512
HOSTILE_NAMES = (b"../outside", b"/tmp/outside", b"a/../../outside", b"", b".", b"..", b"x" * 100)
HOSTILE_NAMES += (b"\xff\xfe", b"package/", b"package/data", b"C:\\outside", b"-rf", b"a\nb")
KINDS = (b"0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"V")
SIZES = (*EXTREMES, -1, -512, -1024, -(2**60), 2**80)
BOMB = 2**28  # bytes of zeros, zipped to a thousandth
CHAIN = 3_000  # headers of headers
RECORDS = (b"size=-1", b"size=9" + b"9" * 60, b"size=1024", b"path=../outside", b"linkpath=/tmp")
RECORDS += (b"size=nan", b"mtime=inf", b"hdrcharset=BINARY", b"=", b"x", b"path=", b"uid=x")
RECORDS += (b"GNU.sparse.map=0,1,x", b"GNU.sparse.map=0,9", b"GNU.sparse.major=1\0")
SPARSE = (b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=1000000000")
SPARSE_OLD = (b"GNU.sparse.size=1000000000", b"GNU.sparse.numblocks=2", b"GNU.sparse.offset=-5")


def number(value: int, width: int) -> bytes:
    """Octal where it fits, else as GNU tar writes it: the first bit set, then big-endian."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    mark = b"\x80" if value >= 0 else b"\xff"
    return mark + (value % 256 ** (width - 1)).to_bytes(width - 1, "big")


def header(
    name: bytes, size: int, kind: bytes = b"0", link: bytes = b"", rest: bytes = b""
) -> bytes:
    """One block; rest: from byte 257 on, where the magic is."""
    parts = name[:100].ljust(100, b"\0"), b"0000644\0" + b"0000000\0" * 2, number(size, 12)
    parts = *parts, b"0" * 11 + b"\0", b" " * 8, kind, link[:100].ljust(100, b"\0")
    return sealed(b"".join(parts) + (rest or b"ustar\x0000").ljust(255, b"\0"))


def sealed(block: bytes) -> bytes:
    """With the checksum that makes it believed."""
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % BLOCK)


def zipped(content: bytes, level: int = 1) -> bytes:
    """As gzip does it, but the same whenever it is made."""
    return gzip.compress(content, level, mtime=0)


def member(name: bytes, content: bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    return header(name, len(content), kind, link) + padded(content)


def records(*lines: bytes) -> bytes:
    """A pax header of these keys and values."""
    made = b""
    for line in lines:
        length = len(line) + 2
        while len(b"%d %s\n" % (length, line)) != length:
            length += 1
        made += b"%d %s\n" % (length, line)
    return made


def sparse(chance: Random, name: bytes, content: bytes) -> bytes:
    """GNU's old form: holes by offset and length, here anywhere."""
    holes = b"".join(number(chance.choice(SIZES) % 2**87, 12) for _ in range(8))
    more, real = chance.choice((b"\0", b"\1")), number(chance.choice(SIZES), 12)
    rest = b"ustar  \0".ljust(129, b"\0") + holes + more + real
    return header(name, len(content), b"S", rest=rest) + padded(content)


def intruder(chance: Random, names: list[bytes]) -> bytes:
    """A member that has no business there, or a header that changes what the next one is."""
    name = chance.choice((*HOSTILE_NAMES, *names))
    match chance.randrange(9):
        case 0 | 1:
            link = chance.choice((b"/etc/passwd", b"../../outside", *names))
            return header(name, 0, chance.choice((b"1", b"2")), link)
        case 2:
            return header(name, chance.choice((0, 5)), chance.choice((b"3", b"4", b"5", b"6")))
        case 3:
            lines = chance.sample(RECORDS, chance.randint(1, 3))
            return member(b"pax", records(*lines), chance.choice((b"x", b"g")))
        case 4:
            lines = chance.choice((SPARSE, SPARSE_OLD))
            return member(b"pax", records(*lines), b"x") + member(name, b"9\n" * 300)
        case 5:
            return member(b"long", name + b"\0" * chance.randrange(3), chance.choice((b"L", b"K")))
        case 6:
            return sparse(chance, name, b"some content")
        case 7:
            return header(name, chance.choice(SIZES), chance.choice(KINDS))
    return member(name, b"other content")


def spoil_archive(chance: Random, members: dict[str, bytes]) -> bytes:
    """The members as .tar.gz, up to three of them altered, and what else may be in an archive."""
    names = [name.encode() for name in members]
    blocks = [member(name.encode(), content) for name, content in members.items()]
    for _ in range(chance.randint(1, 3)):
        at, how = chance.randrange(len(blocks)), chance.randrange(7)
        if how < 2:
            blocks.insert(at, intruder(chance, names))
        elif how == 2:
            blocks[at] = _other_header(chance, blocks[at])
        elif how == 3:
            blocks.insert(chance.randrange(len(blocks)), blocks[at])
        elif how == 4 and len(blocks) > 1:
            del blocks[at]
        elif how == 5:
            blocks[at] = blocks[at][:BLOCK] + padded(spoil(chance, blocks[at][BLOCK:]))
        else:
            blocks.append(blocks.pop(at))
    tar = b"".join(blocks) + b"\0" * chance.choice((0, BLOCK, 2 * BLOCK))
    tar = spoil(chance, tar) if chance.random() < 0.1 else tar
    made = zipped(tar, chance.choice((0, 0, 0, 1)))
    return spoil(chance, made, bomb()[:5000]) if chance.random() < 0.2 else made


def _other_header(chance: Random, block: bytes) -> bytes:
    """The same content behind a header with another size, kind or name, or broken anywhere."""
    name, head = block[:100].rstrip(b"\0"), block[:BLOCK]
    match chance.randrange(4):
        case 0:
            head = header(name, chance.choice(SIZES))
        case 1:
            head = header(name, len(block) - BLOCK, chance.choice(KINDS), b"/etc/passwd")
        case 2:
            head = header(chance.choice(HOSTILE_NAMES), len(block) - BLOCK)
        case 3:
            head = spoil(chance, head)[:BLOCK].ljust(BLOCK, b"\0")
            head = sealed(head) if chance.random() < 0.8 else head
    return head + block[BLOCK:]


@functools.cache
def bomb() -> bytes:
    """BOMB zeros, zipped; in streams that follow each other, as gzip allows."""
    return zipped(bytes(BOMB // 16), 9) * 16


@functools.cache
def zeros_in_a_header() -> bytes:
    """BOMB zeros again, as the content of a header that is read at once; in one stream."""
    stream = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [stream.compress(header(b"pax", BOMB, b"x"))]
    pieces += [stream.compress(bytes(2**20)) for _ in range(BOMB // 2**20)]
    return b"".join(pieces) + stream.flush()


def traps(members: dict[str, bytes]) -> list[bytes]:
    """Archives that only few accidents would make."""
    name = next(iter(members)).encode()
    whole = b"".join(member(key.encode(), content) for key, content in members.items())
    return [
        zipped(whole) + bomb(),
        bomb(),
        zeros_in_a_header(),
        zipped(header(name, BOMB) + bytes(BLOCK)) + bomb(),
        *(zipped(header(name, size, kind) + whole) for size in SIZES for kind in KINDS),
        zipped(member(b"pax", records(b"path=x"), b"x") * CHAIN + whole),
        zipped(member(b"long", b"x", b"L") * CHAIN + whole),
        zipped(header(name, 0, b"1", name) * 50 + whole),
    ]
