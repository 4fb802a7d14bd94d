// Drops frames of strangers to ports where no rule could accept them or learn from them.
//
// A stranger is a source without entries and connections, outside the networks that rules and static entries name, and
// without a frame that a worker has not decided yet. Userspace finds out which ports these are when it compiles the rules
// (`dataplane/engine/src/table/strangers`), and counts entries and connections (`policy::strangers`).
//
// While few frames arrive, all of them go up: only userspace records who was dropped. SPDX-License-Identifier: MIT OR
// Apache-2.0
#ifndef STRANGERS_H
#define STRANGERS_H

#include "fast_path.h"

// Protected networks of each family that a destination is compared with.
#define PROTECTED 4

// Userspace writes it.
struct strangers {
    __u32 is_on;     // whether there are ports where strangers are dropped
    __u32 tick;      // increases when all workers have emptied their rings since it last did
    __u32 unread;    // the tick when the last frame went up whose source was not read; written by the program, too
    __u32 window;    // the number of the present interval of the port budget
    __u32 free_ports; // ports of a source that need not be counted in an interval; 32 for any number
    __u32 by_prefix; // whether all addresses of a /64 are one source
    __u32 mask;      // number of places of sources, less one
    __u32 has_networks[2];   // whether there are bits in `named4`, `named6`
    __u32 samples; // frames of strangers that go up between two ticks, on each queue
    __u32 has_hosts; // whether there are bits in `named_hosts`
    __u32 unused;
    __u32 protected4[PROTECTED][2]; // first and last address
    __u64 protected6[PROTECTED][2]; // the upper halves of the first and the last address
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct strangers);
} strangers SEC(".maps");

// A line of bytes. The kernel aligns each value of an array to 8 bytes.
struct bytes {
    __u8 of[64];
};

// By class of frame and destination port: 0, or the trail of dropped frames.
#define CLASSES 12
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, CLASSES * 65536 / 64);
    __type(key, __u32);
    __type(value, struct bytes);
} classes SEC(".maps");

// A bit for each place of a source: whether one of its sources has an entry or a connection.
BITMAP(known, 64); // set by the loader

// A bit for each /24 of IPv4 that rules and static entries name.
BITMAP(named4, 1 << 24);

// The same for the hash of each /32 of IPv6.
#define NETWORK6_BITS 20
BITMAP(named6, 1 << NETWORK6_BITS);

// A bit for each hash of a single address that rules and static entries name.
#define HOST_NAME_BITS 18
BITMAP(named_hosts, 1 << HOST_NAME_BITS);

// Whether a frame of a source went up lately: a bit for the hash of the source, in one word for each of the last four ticks.
#define PASSED_BITS 16
#define TICKS 4
struct passed {
    __u64 of[TICKS]; // by the tick, modulo 4. Userspace clears the word of a tick before the tick
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, (1 << PASSED_BITS) / 64);
    __type(key, __u32);
    __type(value, struct passed);
} passed SEC(".maps");

// The ports of dropped frames, by a hash of the source. Cores write it without locks: a lost write counts a port less.
#define TRIED_BITS 16
struct tried {
    __u32 window; // the interval of `ports`
    __u32 ports;  // a bit for some of them
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << TRIED_BITS);
    __type(key, __u32);
    __type(value, struct tried);
} tried SEC(".maps");

// The frames of strangers that went up since a tick, by receive queue of the outside.
struct samples {
    __u32 tick;
    __u32 count;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1); // set by the loader
    __type(key, __u32);
    __type(value, struct samples);
} samples SEC(".maps");

// The hash of a source: `KnownSources` of `dataplane/policy/src/strangers.rs`.
static __always_inline __u64 source4(__u64 secret, __u32 address)
{
    return mix(secret, address);
}

static __always_inline __u64 source6(const struct strangers *control, __u64 secret, __u64 high, __u64 low)
{
    __u64 hash = mix(secret, high);
    return READ(control->by_prefix) ? hash : mix(hash, low);
}

static __always_inline __u64 source_of(const struct strangers *control, __u64 secret, const struct flow *flow)
{
    return flow->is_ipv6 ? source6(control, secret, flow->words[0], flow->words[1]) : source4(secret, flow->words[0]);
}

static __always_inline struct passed *passed_of(__u64 hash)
{
    __u32 word = hash >> (64 - PASSED_BITS + 6);
    return bpf_map_lookup_elem(&passed, &word);
}

static __always_inline __u32 bit_of(__u64 hash)
{
    return hash >> (64 - PASSED_BITS) & 63;
}

// `is_alone`: whether no other core notes sources at the same time.
static __always_inline void note_source(__u64 hash, __u32 tick, bool is_alone)
{
    struct passed *words = passed_of(hash);
    __u64 bit = 1ULL << bit_of(hash);
    if (!words || READ(words->of[tick % TICKS]) & bit)
        return;
    if (is_alone)
        words->of[tick % TICKS] |= bit;
    else
        __sync_fetch_and_or(&words->of[tick % TICKS], bit);
}

// Notes that a frame from outside without a flow goes up. Userspace may learn from it.
static __always_inline void note_passed(const struct xdp_md *frame, struct strangers *control, __u64 secret, bool is_alone)
{
    const void *end = (const void *)(long)frame->data_end;
    struct network network;
    if (!read_network(frame, &network))
        return; // Userspace refuses it.
    const __u8 *bytes = network.bytes;
    __u16 ethertype = network.ethertype;
    __u32 tick = READ(control->tick);
    if (ethertype == ETHERTYPE_IPV4) {
        if ((const void *)(bytes + 20) <= end)
            note_source(source4(secret, *(const __u32 *)(bytes + 12)), tick, is_alone);
    } else if (ethertype == ETHERTYPE_IPV6) {
        if ((const void *)(bytes + 40) <= end) {
            __u64 halves[2];
            __builtin_memcpy(halves, bytes + 8, sizeof(halves));
            note_source(source6(control, secret, halves[0], halves[1]), tick, is_alone);
        }
    } else if (ethertype != ETHERTYPE_ARP) {
        // Perhaps a packet in two VLANs or in a PPPoE session.
        control->unread = tick;
    }
}

// Whether the destination is in a protected network.
static __always_inline bool is_protected(const struct strangers *control, const struct flow *flow)
{
    if (flow->is_ipv6) {
        __u64 address = bpf_be64_to_cpu(flow->words[2]);
        _Pragma("unroll") for (int at = 0; at < PROTECTED; at++) if (
            address >= READ(control->protected6[at][0]) && address <= READ(control->protected6[at][1])) return true;
        return false;
    }
    __u32 address = bpf_ntohl(flow->words[0] >> 32);
    _Pragma("unroll") for (int at = 0; at < PROTECTED; at++) if (address >= READ(control->protected4[at][0]) &&
                                                                 address <= READ(control->protected4[at][1])) return true;
    return false;
}

// Whether rules or static entries name the source or a network of it. `hash` is that of the source.
static __always_inline bool is_named(const struct strangers *control, __u64 secret, const struct flow *flow, __u64 hash)
{
    if (READ(control->has_hosts) && is_set(&named_hosts, hash >> (64 - HOST_NAME_BITS)))
        return true;
    if (flow->is_ipv6)
        return READ(control->has_networks[1]) &&
               is_set(&named6, mix(secret, (__u32)flow->words[0]) & ((1 << NETWORK6_BITS) - 1));
    return READ(control->has_networks[0]) && is_set(&named4, bpf_ntohl(flow->words[0]) >> 8);
}

// The kinds of frames that rules distinguish: `class_index` of `dataplane/policy/src/strangers.rs`.
static __always_inline __u32 class_of(const struct strangers *control, const struct flow *flow)
{
    __u8 protocol = flow->is_ipv6 ? flow->words[4] >> 32 : flow->words[1] >> 32;
    __u32 kind = protocol == IPPROTO_UDP ? 2 : !flow->is_syn;
    return flow->is_ipv6 * 6 + kind * 2 + !is_protected(control, flow);
}

// The trail by which the rules drop frames like this one if their sources are strangers, or 0.
static __always_inline __u32 trail_of(__u32 class_and_port)
{
    __u32 line = class_and_port / 64;
    struct bytes *of_class = bpf_map_lookup_elem(&classes, &line);
    return of_class ? READ(of_class->of[class_and_port & 63]) : 0;
}

// Whether the source of the frame is a stranger, and userspace need not see the frame. `queue` is the receive queue.
static __always_inline bool is_strangers(const struct strangers *control, __u64 secret, __u32 queue,
                                         const struct flow *flow, __u32 class_and_port)
{
    // Before the bits: a frame that was decided before this tick has changed them.
    __u32 tick = READ(control->tick);
    barrier();
    __u64 hash = source_of(control, secret, flow);
    struct passed *recent = passed_of(hash);
    // The notes first: when the note of a frame ends, its source is known if the frame has made it known.
    if (!recent ||
        (READ(recent->of[0]) | READ(recent->of[1]) | READ(recent->of[2]) | READ(recent->of[3])) >> bit_of(hash) & 1 ||
        is_set(&known, hash & READ(control->mask)) || tick - READ(control->unread) < TICKS ||
        is_named(control, secret, flow, hash))
        return false;
    struct samples *sampled = bpf_map_lookup_elem(&samples, &queue);
    if (!sampled)
        return false;
    __u32 count = sampled->tick == tick ? sampled->count : 0;
    if (count < READ(control->samples)) {
        sampled->count = count + 1;
        sampled->tick = tick;
        return false;
    }
    __u32 free_ports = READ(control->free_ports);
    if (free_ports < 32) {
        __u32 number = hash >> (64 - TRIED_BITS);
        struct tried *of_source = bpf_map_lookup_elem(&tried, &number);
        if (!of_source)
            return false;
        __u32 window = READ(control->window);
        __u32 bit = 1U << (mix(secret, class_and_port) & 31);
        __u32 ports = READ(of_source->window) == window ? READ(of_source->ports) : 0;
        if (!(ports & bit)) {
            ports |= bit;
            __u32 left = ports, count_of_ports = 0;
            _Pragma("unroll") for (int at = 0; at < 8; at++)
            {
                count_of_ports += left != 0;
                left &= left - 1;
            }
            // Userspace counts this port.
            if (count_of_ports > free_ports)
                return false;
            of_source->ports = ports;
            of_source->window = window;
        }
    }
    return true;
}

// What the program itself does with a frame: XDP_REDIRECT, XDP_DROP, or XDP_PASS for a frame that goes up.
// `queues`: the number of receive queues.
static __always_inline int shortcut(struct xdp_md *frame, __u32 side, __u32 queue, __u32 queues, struct misses *misses)
{
    __u32 first = 0;
    struct fast_control *control = bpf_map_lookup_elem(&fast_control, &first);
    struct strangers *unknown = bpf_map_lookup_elem(&strangers, &first);
    if (!control || !unknown)
        return XDP_PASS; // Cannot be: the maps have these entries.
    __u32 generation = READ(control->generation);
    bool drops = !side && READ(unknown->is_on);
    if (!generation || (!drops && !READ(control->is_used)))
        return XDP_PASS;
    barrier();
    struct flow flow = {};
    __u32 frame_length = frame->data_end - frame->data;
    if (frame_length > READ(control->max_frame) || !read_flow(frame, side, control->secret, &flow)) {
        misses->unfit++;
        if (drops)
            note_passed(frame, unknown, control->secret, queues == 1);
    } else {
        struct found found = {};
        enum outcome outcome = find(control, &flow, queue, generation, &found);
        if (outcome == VALID) {
            if (carry(control, &flow, &found, frame_length, side, misses) == XDP_REDIRECT)
                return XDP_REDIRECT;
        } else if (outcome == ENDED) {
            misses->ended++;
        } else {
            if (drops) {
                __u32 ports = flow.is_ipv6 ? flow.words[4] : flow.words[1];
                __u32 class_and_port = class_of(unknown, &flow) << 16 | bpf_ntohs(ports >> 16);
                __u32 trail = trail_of(class_and_port);
                if (trail && is_strangers(unknown, control->secret, queue, &flow, class_and_port)) {
                    count(trail, &flow, frame_length);
                    return XDP_DROP;
                }
                // Nothing is learnt from frames to this port: they do not count as frames on their way.
                drops = !trail;
            }
            misses->unknown++;
        }
        if (drops)
            note_source(source_of(unknown, control->secret, &flow), READ(unknown->tick), queues == 1);
    }
    return XDP_PASS;
}

#endif
