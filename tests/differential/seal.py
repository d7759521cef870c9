"""The end of a DUMP payload: the version of the format and a checksum."""

import struct

CRC_TABLE = []


def crc64(data):
    """The CRC-64 (Jones, reflected) at the end of a DUMP payload."""
    if not CRC_TABLE:
        for byte in range(256):
            for _ in range(8):
                byte = byte >> 1 ^ (0x95AC9329AC4BC9B5 if byte & 1 else 0)
            CRC_TABLE.append(byte)
    crc = 0
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc


def sealed(body, version=10):
    body += struct.pack("<H", version)
    return body + struct.pack("<Q", crc64(body))
