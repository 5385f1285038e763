"""Edits the control file and the slot table of a stopped node, by docs/formats/two_copy_v1.md, control_v2.md and
slots_v1.md, for states that no command leads to."""

import struct

HEADER = struct.Struct("<QIIQI")  # of a two-copy file: magic, version, payload length, sequence, payload CRC
CONTROL = (0x314c5443574f5400, 65536, "control.a", "control.b")  # magic, capacity, names
SLOTS = (0x31544f4c53574f54, 262144, "slots.a", "slots.b")

VERSIONS = {CONTROL[0]: 2, SLOTS[0]: 1}

# Offsets in the control file's payload.
HISTORY_COUNT = 92  # offset in the payload
EXACT_FROM = 48     # term_id, LSN, chain
EXACT_FROM_TERM = 76
PROMISED_TERM = 80
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


def _read(path, magic):
    image = path.read_bytes()
    found, version, length, sequence, payload_crc = HEADER.unpack_from(image)
    assert (found, version) == (magic, VERSIONS[magic]), path
    assert struct.unpack_from("<I", image, 28)[0] == crc32c(image[:28]), path
    payload = image[32:32 + length]
    assert payload_crc == crc32c(payload), path
    return sequence, bytearray(payload)


def _edit(data_dir, kind, change):
    magic, capacity, *names = kind
    sequence, payload = max(_read(data_dir / name, magic) for name in names)
    change(payload)
    header = HEADER.pack(magic, VERSIONS[magic], len(payload), sequence + 1, crc32c(payload))
    image = header + struct.pack("<I", crc32c(header)) + payload
    for name in names:
        (data_dir / name).write_bytes(image.ljust(capacity, b"\0"))


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

    _edit(data_dir, CONTROL, change)


def promise(data_dir, term):
    """As if the node had granted that term to a candidate who never began it."""
    _edit(data_dir, CONTROL, lambda payload: struct.pack_into("<I", payload, PROMISED_TERM, term))


def set_exact_from(data_dir, term, term_id, lsn):
    """As if the state were exact only from that position on."""
    def change(payload):
        struct.pack_into("<QQQ", payload, EXACT_FROM, term_id, lsn, 0)
        struct.pack_into("<I", payload, EXACT_FROM_TERM, term)

    _edit(data_dir, CONTROL, change)


def slot_entries(data_dir):
    """The slots as saved, for restore_slots."""
    magic, _, *names = SLOTS
    _, payload = max(_read(data_dir / name, magic) for name in names)
    retained, count = struct.unpack_from("<II", payload, 4)
    return count, payload[12 + 16 * retained:]


def restore_slots(data_dir, saved):
    """The slots are as they were; what is known of the log stays."""
    def change(payload):
        count, entries = saved
        retained, = struct.unpack_from("<I", payload, 4)
        struct.pack_into("<I", payload, 8, count)
        payload[12 + 16 * retained:] = entries

    _edit(data_dir, SLOTS, change)
