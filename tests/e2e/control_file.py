"""Reads and writes the control file of a stopped node, by docs/formats/two_copy_v1.md and control_v1.md, for states that
no command leads to yet."""

import struct

MAGIC = 0x314c5443574f5400
CAPACITY = 65536
HEADER = struct.Struct("<QIIQI")
HISTORY_COUNT = 92  # offset in the payload
EXACT_FROM = 48     # term_id, LSN, chain
EXACT_FROM_TERM = 76
TEXTS = 100         # cluster_id, node_id, promised candidate, recovery reason
HISTORY_ENTRY = struct.Struct("<IQQ")

CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    CRC_TABLE.append(_byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _read(path):
    image = path.read_bytes()
    magic, version, length, sequence, payload_crc = HEADER.unpack_from(image)
    assert (magic, version) == (MAGIC, 1), path
    assert struct.unpack_from("<I", image, 28)[0] == crc32c(image[:28]), path
    payload = image[32:32 + length]
    assert payload_crc == crc32c(payload), path
    return sequence, bytearray(payload)


def _edit(data_dir, change):
    sequence, payload = max(_read(data_dir / name) for name in ("control.a", "control.b"))
    change(payload)
    header = HEADER.pack(MAGIC, 1, len(payload), sequence + 1, crc32c(payload))
    image = header + struct.pack("<I", crc32c(header)) + payload
    for name in ("control.a", "control.b"):
        (data_dir / name).write_bytes(image.ljust(CAPACITY, b"\0"))


def add_term(data_dir, term, start_lsn, term_id):
    """As if the primary had been promoted: it begins `term` when it starts next."""
    def change(payload):
        at = TEXTS
        for _ in range(4):
            at += 4 + struct.unpack_from("<I", payload, at)[0]
        count, = struct.unpack_from("<I", payload, HISTORY_COUNT)
        at += count * HISTORY_ENTRY.size
        payload[at:at] = HISTORY_ENTRY.pack(term, start_lsn, term_id)
        struct.pack_into("<I", payload, HISTORY_COUNT, count + 1)

    _edit(data_dir, change)


def set_exact_from(data_dir, term, term_id, lsn):
    """As if the state were exact only from that position on."""
    def change(payload):
        struct.pack_into("<QQQ", payload, EXACT_FROM, term_id, lsn, 0)
        struct.pack_into("<I", payload, EXACT_FROM_TERM, term)

    _edit(data_dir, change)
