// The fast path: applies verdicts that userspace has written for flows.
//
// A verdict says that packets of one flow leave on the other side, while its conditions hold: its generation is the
// present one, its time has not come, and the addresses and the connection that it was decided by have not changed. A
// frame without such a verdict goes up to userspace, unless it is dropped as a stranger's: see strangers.h.
//
// The program repeats the checks of the reader in userspace (`dataplane/engine/src/headers`): a frame that the reader
// refuses, or reads in another way, has no flow here. `dataplane/ring/src/fast_path` has the same layouts and the same
// flows in Rust, and its tests compare them. SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef FAST_PATH_H
#define FAST_PATH_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>
#include <stddef.h>

#include "fast_control.h"

// The table has a range for each queue, and each range has this number of regions. The outer address of a flow selects
// its region, so that the flows of one host cannot fill the table.
#define REGIONS 16
#define REGION_BITS 4

// Number of places at which the verdict of a flow can be.
#define PROBES 8

// Bits of the filter of outer addresses, see `hosts`.
#define HOST_BITS 18

// Counted combinations of side, verdict and rules.
#define TRAILS 256
#define TRAIL_BITS 8
#define RECORD_SHIFT 9

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERNET_LENGTH 14
#define VLAN_LENGTH 4

#define READ(value) (*(const volatile typeof(value) *)&(value))
#define barrier() asm volatile("" ::: "memory")

// Userspace writes a verdict while its sequence is odd.
struct verdict {
    __u32 sequence;
    __u32 generation; // 0: the place was never used
    __u64 until;      // CLOCK_MONOTONIC in nanoseconds
    __u32 epochs[3];  // places in `epochs`: of source, destination, static entries; 0: not asked
    __u32 connection; // epoch of the connection's record
    __u32 sum;        // of the three epochs
    __u32 trail;      // TRAIL_BITS: place in `cells`; then whether packets are replies; then the place of the record plus
                      // 1, or 0 if packets are not tracked
    __u64 last;       // a time close to that of the last packet
};

// Fields of packets are as in the packet. `kind`: IP protocol, side of arrival << 8, VLAN number << 16.
struct place4 {
    __u32 source;
    __u32 destination;
    __u32 ports;
    __u32 kind;
    struct verdict verdict;
};

struct place6 {
    __u64 source[2];
    __u64 destination[2];
    __u32 ports;
    __u32 kind;
    struct verdict verdict;
    __u64 unused[5];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1); // set by the loader
    __type(key, __u32);
    __type(value, struct place4);
} verdicts4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1); // set by the loader
    __type(key, __u32);
    __type(value, struct place6);
} verdicts6 SEC(".maps");

// The record of a carried connection: `CarriedConnection` of `dataplane/policy/src/carried.rs`. The first of two is of the
// originator, the second of the responder.
struct record {
    struct {
        __u32 end;          // after all data that this end has sent
        __u32 next;         // after all data that it has sent without a gap
        __u32 acknowledged; // by the other end
        __u32 limit;        // the highest number at which it may begin a segment
    } ends[2];
    __u32 windows[2]; // the largest that each end has offered, in bytes
    __u64 last;       // time of the last packet
    __u64 bytes;      // IP bytes that userspace has not read yet
    __u32 epoch;
    __u32 kind;       // window scales, 4 bits each; IS_TCP
};

#define IS_TCP (1 << 8)

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1); // set by the loader
    __type(key, __u32);
    __type(value, struct record);
} records SEC(".maps");

// Numbers that userspace increases at each change of an address. Place 0 never changes.
// The kernel aligns each value of an array to 8 bytes, so a value has 16 of them.
struct epoch_line {
    __u32 epochs[16];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1); // set by the loader
    __type(key, __u32);
    __type(value, struct epoch_line);
} epochs SEC(".maps");

// A map of bits, by their places: words of 64 bits.
#define BITMAP(name, bits)                    \
    struct {                                  \
        __uint(type, BPF_MAP_TYPE_ARRAY);     \
        __uint(map_flags, BPF_F_MMAPABLE);    \
        __uint(max_entries, (bits) / 64);     \
        __type(key, __u32);                   \
        __type(value, __u64);                 \
    } name SEC(".maps")

// Whether the bit at a place is set. A place that does not exist counts as set: then the frame goes up.
static __always_inline bool is_set(void *bitmap, __u32 place)
{
    __u32 number = place / 64;
    __u64 *word = bpf_map_lookup_elem(bitmap, &number);
    return !word || READ(*word) >> (place & 63) & 1;
}

// A bit for each hash of an outer address that may have verdicts. A flood of strangers reads these 32 KiB, and not the
// table.
BITMAP(hosts, 1 << HOST_BITS);

// Packets and bytes by core and trail. Only the program on this core writes them.
struct cell {
    __u64 packets;
    __u64 ip_bytes;
    __u64 frame_bytes;
    __u64 unused;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, TRAILS); // set by the loader: times the number of cores
    __type(key, __u32);
    __type(value, struct cell);
} cells SEC(".maps");

// The interface of each side, as a target.
struct {
    __uint(type, BPF_MAP_TYPE_DEVMAP);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u32);
} peers SEC(".maps");

// Flags of TCP: RFC 9293, 3.1.
#define SYN 0x02
#define PSH 0x08
#define ACK 0x10
#define URG 0x20
#define ECE 0x40
#define CWR 0x80

// The flow of a frame.
struct flow {
    __u64 words[5]; // addresses, then ports and kind: 2 words for IPv4, 5 for IPv6
    __u64 outer;    // hash of the outer address
    __u32 is_ipv6;
    __u32 ip_length;
    // Of TCP segments:
    __u32 sequence;
    __u32 end; // after the data
    __u32 acknowledgement;
    __u32 window; // not scaled
    bool is_syn; // no other flag
    bool is_plain; // only ACK, with PSH, URG, ECE and CWR, and no options except timestamps
};

static __always_inline __u64 mix(__u64 hash, __u64 word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
}

// Whether the header of the transport protocol is complete: see `dataplane/engine/src/headers/transport.rs`. `length`
// is the number of bytes behind the IP header.
static __always_inline bool is_complete(const __u8 *header, const void *end, __u8 protocol, __u32 length,
                                        struct flow *flow)
{
    if (protocol == IPPROTO_TCP) {
        if (length < 20 || (const void *)(header + 20) > end)
            return false;
        __u32 offset = (header[12] >> 4) * 4;
        if (offset < 20 || offset > length)
            return false;
        flow->sequence = bpf_ntohl(*(const __u32 *)(header + 4));
        flow->end = flow->sequence + length - offset;
        flow->acknowledgement = bpf_ntohl(*(const __u32 *)(header + 8));
        flow->window = (__u32)header[14] << 8 | header[15];
        flow->is_syn = header[13] == SYN;
        flow->is_plain = (header[13] & ~(PSH | URG | ECE | CWR)) == ACK;
        // Two padding options, then timestamps alone: RFC 7323, appendix A.
        if (offset != 20)
            flow->is_plain &= offset == 32 && (const void *)(header + 24) <= end && header[20] == 1 &&
                              header[21] == 1 && header[22] == 8 && header[23] == 10;
        return true;
    }
    if (protocol == IPPROTO_UDP) {
        if (length < 8 || (const void *)(header + 8) > end)
            return false;
        __u32 datagram = (__u32)header[4] << 8 | header[5];
        return datagram >= 8 && datagram <= length;
    }
    return false;
}

// What follows the Ethernet header and at most one VLAN tag.
struct network {
    const __u8 *bytes;
    __u16 ethertype;
    bool is_tagged;
    __u32 vlan;
};

// Reads the headers in front of the network's. Returns whether they are complete.
static __always_inline bool read_network(const struct xdp_md *frame, struct network *network)
{
    const void *data = (const void *)(long)frame->data, *end = (const void *)(long)frame->data_end;
    const __u8 *bytes = data;
    if ((const void *)(bytes + ETHERNET_LENGTH) > end)
        return false;
    network->ethertype = (__u16)bytes[12] << 8 | bytes[13];
    network->is_tagged = network->ethertype == ETHERTYPE_VLAN;
    network->vlan = 0;
    bytes += ETHERNET_LENGTH;
    if (network->is_tagged) {
        if ((const void *)(bytes + VLAN_LENGTH) > end)
            return false;
        network->vlan = ((__u32)bytes[0] << 8 | bytes[1]) & 0xfff;
        network->ethertype = (__u16)bytes[2] << 8 | bytes[3];
        bytes += VLAN_LENGTH;
    }
    network->bytes = bytes;
    return true;
}

// Reads the flow of a frame. Returns whether it has one.
static __always_inline bool read_flow(const struct xdp_md *frame, __u32 side, __u64 secret, struct flow *flow)
{
    const void *end = (const void *)(long)frame->data_end;
    struct network network;
    // A priority tag is no network.
    if (!read_network(frame, &network) || (network.is_tagged && !network.vlan))
        return false;
    const __u8 *bytes = network.bytes;
    __u16 ethertype = network.ethertype;
    __u32 vlan = network.vlan;
    __u32 left = end - (const void *)bytes;
    __u64 outer = secret ^ 0x6a09e667f3bcc908ULL;
    if (ethertype == ETHERTYPE_IPV4) {
        if ((const void *)(bytes + 20 + 8) > end || bytes[0] != 0x45)
            return false;
        __u32 length = (__u32)bytes[2] << 8 | bytes[3];
        // A fragment, or bytes that are missing.
        if (bytes[6] & 0x3f || bytes[7] || length < 20 || length > left)
            return false;
        __u8 protocol = bytes[9];
        if (!is_complete(bytes + 20, end, protocol, length - 20, flow))
            return false;
        __u32 source = *(const __u32 *)(bytes + 12), destination = *(const __u32 *)(bytes + 16);
        __u32 kind = protocol | side << 8 | vlan << 16;
        flow->words[0] = source | (__u64)destination << 32;
        flow->words[1] = *(const __u32 *)(bytes + 20) | (__u64)kind << 32;
        flow->outer = mix(outer, side ? destination : source);
        flow->is_ipv6 = 0;
        flow->ip_length = length;
        return true;
    }
    if (ethertype == ETHERTYPE_IPV6) {
        if ((const void *)(bytes + 40 + 8) > end || bytes[0] >> 4 != 6)
            return false;
        __u32 length = (__u32)bytes[4] << 8 | bytes[5];
        if (40 + length > left)
            return false;
        __u8 protocol = bytes[6];
        if (!is_complete(bytes + 40, end, protocol, length, flow))
            return false;
        __u32 kind = protocol | side << 8 | vlan << 16;
        // The alignment of a packet in its frame is 2 bytes.
        __builtin_memcpy(flow->words, bytes + 8, 32);
        flow->words[4] = *(const __u32 *)(bytes + 40) | (__u64)kind << 32;
        flow->outer = mix(mix(outer, side ? flow->words[2] : flow->words[0]), side ? flow->words[3] : flow->words[1]);
        flow->is_ipv6 = 1;
        flow->ip_length = 40 + length;
        return true;
    }
    return false;
}

// Whether an outer address may have verdicts.
static __always_inline bool is_host(__u64 outer)
{
    return is_set(&hosts, outer & ((1 << HOST_BITS) - 1));
}

static __always_inline __u32 epoch_of(__u32 place)
{
    __u32 number = place / 16;
    struct epoch_line *line = bpf_map_lookup_elem(&epochs, &number);
    return line ? READ(line->epochs[place % 16]) : 0;
}

// The outcome of a search for a verdict.
enum outcome {
    VALID,
    UNKNOWN, // there is none
    ENDED,   // it does not count any more
};

// What a valid verdict says.
struct found {
    __u32 trail;      // as in the verdict
    __u32 connection; // as in the verdict
    __u64 now;
};

// Checks a verdict whose flow is that of the frame. `sequence` was read before the flow.
static __always_inline enum outcome check(struct verdict *verdict, __u32 sequence, __u64 set_time, struct found *found)
{
    __u64 now = set_time ? set_time : bpf_ktime_get_ns();
    __u64 until = READ(verdict->until);
    __u32 sum = epoch_of(READ(verdict->epochs[0])) + epoch_of(READ(verdict->epochs[1])) +
                epoch_of(READ(verdict->epochs[2]));
    bool counts = now < until && sum == READ(verdict->sum);
    found->trail = READ(verdict->trail);
    found->connection = READ(verdict->connection);
    found->now = now;
    barrier();
    if (!counts || READ(verdict->sequence) != sequence)
        return ENDED;
    // For the owner of the table, which reuses the places of flows without packets. Once a second suffices.
    if (now - READ(verdict->last) > 1000000000ULL)
        verdict->last = now;
    return VALID;
}

// The place of a flow in its family's map. A place of an earlier generation, or one that was never used, ends the
// search: the writer takes the first place that is free.
#define FIND(map, family, is_same)                                                                     \
    _Pragma("unroll") for (int probe = 0; probe < PROBES; probe++)                                     \
    {                                                                                                  \
        __u32 index = base + ((__u32)(hash + probe) & mask);                                           \
        struct family *place = bpf_map_lookup_elem(&map, &index);                                      \
        if (!place)                                                                                    \
            return UNKNOWN;                                                                            \
        __u32 sequence = READ(place->verdict.sequence);                                                \
        barrier();                                                                                     \
        if (READ(place->verdict.generation) != generation)                                             \
            return UNKNOWN;                                                                            \
        if (!(sequence & 1) && (is_same))                                                              \
            return check(&place->verdict, sequence, set_time, found);                                  \
    }                                                                                                  \
    return UNKNOWN

static __always_inline enum outcome find4(const struct flow *flow, __u64 secret, __u32 queue, __u32 mask,
                                          __u32 generation, __u64 set_time, struct found *found)
{
    __u64 hash = mix(mix(secret, flow->words[0]), flow->words[1]);
    __u32 base = (queue * REGIONS + (__u32)(flow->outer >> (64 - REGION_BITS))) * (mask + 1);
    __u32 source = flow->words[0], destination = flow->words[0] >> 32;
    __u32 ports = flow->words[1], kind = flow->words[1] >> 32;
    FIND(verdicts4, place4,
         READ(place->source) == source && READ(place->destination) == destination && READ(place->ports) == ports &&
             READ(place->kind) == kind);
}

static __always_inline enum outcome find6(const struct flow *flow, __u64 secret, __u32 queue, __u32 mask,
                                          __u32 generation, __u64 set_time, struct found *found)
{
    __u64 hash = secret;
    _Pragma("unroll") for (int word = 0; word < 5; word++) hash = mix(hash, flow->words[word]);
    __u32 base = (queue * REGIONS + (__u32)(flow->outer >> (64 - REGION_BITS))) * (mask + 1);
    __u32 ports = flow->words[4], kind = flow->words[4] >> 32;
    FIND(verdicts6, place6,
         READ(place->source[0]) == flow->words[0] && READ(place->source[1]) == flow->words[1] &&
             READ(place->destination[0]) == flow->words[2] && READ(place->destination[1]) == flow->words[3] &&
             READ(place->ports) == ports && READ(place->kind) == kind);
}

// Numbers count modulo 2^32: `policy::eval::tracking::window`, also for the functions below.
static __always_inline bool is_after(__u32 number, __u32 other)
{
    return (__s32)(other - number) < 0;
}

static __always_inline __u32 later(__u32 number, __u32 other)
{
    return is_after(number, other) ? number : other;
}

// Distance by which a segment may be in the past.
#define SLACK 66000

// Adds a packet to its connection, if a worker would accept it as a packet of the established connection without any other
// change. Returns whether it did.
static __always_inline bool track(struct record *record, const struct fast_control *control, const struct flow *flow,
                                  const struct found *found)
{
    if (READ(record->epoch) != found->connection)
        return false;
    __u32 kind = READ(record->kind);
    // Another core may have written a time after this core's.
    if ((__s64)(found->now - READ(record->last)) >= (__s64)READ(control->timeouts[kind & IS_TCP ? 0 : 1]))
        return false;
    if (kind & IS_TCP) {
        bool is_reply = found->trail >> TRAIL_BITS & 1;
        typeof(record->ends[0]) *sender = is_reply ? &record->ends[1] : &record->ends[0];
        typeof(record->ends[0]) *peer = is_reply ? &record->ends[0] : &record->ends[1];
        __u32 *sender_window = is_reply ? &record->windows[1] : &record->windows[0];
        __u32 window = READ(*sender_window);
        __u32 peer_window = is_reply ? READ(record->windows[0]) : READ(record->windows[1]);
        __u32 scale = (is_reply ? kind >> 4 : kind) & 0xf;
        __u32 acknowledgement = flow->acknowledgement;
        __u32 acknowledged = READ(peer->acknowledged);
        bool is_in_window =
            flow->is_plain && !is_after(flow->sequence, READ(sender->limit)) &&
            !is_after(READ(sender->acknowledged) - peer_window - SLACK, flow->end) &&
            !is_after(acknowledgement, READ(peer->end)) &&
            !is_after(acknowledged - (window > SLACK ? window : SLACK), acknowledgement);
        if (!is_in_window)
            return false;
        __u32 room = flow->window << scale;
        if (!room)
            room = 1;
        if (room > window)
            *sender_window = room;
        if (flow->sequence != flow->end) {
            sender->end = later(flow->end, READ(sender->end));
            if (!is_after(flow->sequence, READ(sender->next)))
                sender->next = later(flow->end, READ(sender->next));
        }
        peer->acknowledged = later(acknowledgement, acknowledged);
        peer->next = later(READ(peer->next), acknowledgement);
        peer->limit = later(acknowledgement + room, READ(peer->limit));
    }
    record->last = found->now;
    __sync_fetch_and_add(&record->bytes, flow->ip_length);
    return true;
}

// Counters of frames that the fast path did not carry, by cause.
struct misses {
    __u64 unfit;   // no flow: another protocol, a fragment, options, …
    __u64 unknown; // no verdict
    __u64 ended;   // the verdict does not count any more
    __u64 blocked; // no frames may leave on the other side
    __u64 tracked; // a worker must track the packet
};

// Counts a frame of this trail.
static __always_inline void count(__u32 trail, const struct flow *flow, __u32 frame_length)
{
    __u32 index = bpf_get_smp_processor_id() * TRAILS + (trail & (TRAILS - 1));
    struct cell *cell = bpf_map_lookup_elem(&cells, &index);
    if (cell) {
        cell->packets++;
        cell->ip_bytes += flow->ip_length;
        cell->frame_bytes += frame_length;
    }
}

// Searches the verdict of a flow, unless its outer address has none.
static __always_inline enum outcome find(const struct fast_control *control, const struct flow *flow, __u32 queue,
                                         __u32 generation, struct found *found)
{
    if (!READ(control->is_used) || !is_host(flow->outer))
        return UNKNOWN;
    return flow->is_ipv6
               ? find6(flow, control->secret, queue, READ(control->mask[1]), generation, control->now, found)
               : find4(flow, control->secret, queue, READ(control->mask[0]), generation, control->now, found);
}

// Redirects a frame by a valid verdict. Returns XDP_REDIRECT, or XDP_PASS for a frame that goes up.
static __always_inline int carry(const struct fast_control *control, const struct flow *flow, const struct found *found,
                                 __u32 frame_length, __u32 side, struct misses *misses)
{
    __u32 departure = !side;
    // The last argument is the verdict for a side without an interface.
    if (!READ(control->may_send[departure]) || bpf_redirect_map(&peers, departure, XDP_PASS) != XDP_REDIRECT) {
        misses->blocked++;
        return XDP_PASS;
    }
    if (found->trail >> RECORD_SHIFT) {
        __u32 place = (found->trail >> RECORD_SHIFT) - 1;
        struct record *record = bpf_map_lookup_elem(&records, &place);
        if (!record || !track(record, control, flow, found)) {
            misses->tracked++;
            return XDP_PASS;
        }
    }
    count(found->trail, flow, frame_length);
    return XDP_REDIRECT;
}

#endif
