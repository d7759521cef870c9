/* header.h: the PROXY protocol's header, by which a balancer says for whom it connects.
 *
 * Versions 1 (a line) and 2 (binary) are read, as in HAProxy's description of them (proxy-protocol.txt, 2020):
 * strictly, because what is not a header means that the balancer is not set up to send one.  A version 1 line has at
 * most 107 bytes, ports have no leading zeros, addresses must be of the family that is named.  A version 2 header may
 * have anything behind the addresses (TLVs), which is skipped; a checksum among it is not looked at. Pure functions
 * over the caller's memory; any thread. */
#ifndef COVEY_PROXY_FRONT_HEADER_H
#define COVEY_PROXY_FRONT_HEADER_H

#include "base/bytes.h"
#include "base/status.h"
#include "net/net.h"

#include <stdbool.h>
#include <stdint.h>

enum { HEADER_V1_MAX = 107, HEADER_V2_MAX = 16 + 65535 };

struct header {
    size_t size;       /* its bytes, after OK */
    const char *error; /* after E_CORRUPT */
    /* "ADDRESS:PORT", "[ADDRESS]:PORT" or "/path:0"; "": it names nobody (LOCAL, UNKNOWN, UNSPEC), and the connection's
     * own addresses count. */
    char source[NET_ADDRESS_MAX], destination[NET_ADDRESS_MAX];
};

/* OK.  E_AGAIN: all of the bytes belong to a header that is not whole yet.  E_CORRUPT: it is none. */
MUST_USE enum status header_parse(struct bytes in, struct header *out);

/* ---- who may send one ---- */

struct network {
    uint8_t address[16]; /* IPv4 in the first four */
    bool is_ipv6;
    unsigned bits; /* that count */
};

/* "10.0.0.0/8", "::1", "192.0.2.7".  Bits beyond the prefix must be zero. */
bool network_parse(struct bytes text, struct network *out);
/* ip: as net_peer_ip() writes it.  An IPv4 address in IPv6's clothes (::ffff:a.b.c.d) is an IPv4 address. */
bool network_has(const struct network *networks, size_t n, const char *ip);

struct proxy_config;
/* Whether the peer of this connection is one that sends a header, at a listener that accepts them. */
bool header_is_expected(const struct proxy_config *config, int fd);

#endif
