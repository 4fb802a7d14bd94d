// Creates the frames of a test run with live frames, see `live.rs`. There are two programs:
//   copies    sends every frame as it is
//   sequence  writes the headers of frame after frame, at a rate, up to a number or a time
//
// A test run copies its data only when it creates a page. Pages are used again, and a receiver may have written into a
// page, so `sequence` writes all headers each time. The bytes after the headers are zero. SPDX-License-Identifier: MIT
// OR Apache-2.0
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define STREAMS 4
#define PATTERN 128

// Offsets of fields after an Ethernet header without tags and IP headers without options.
#define IPV4_SUM 24
#define IPV4_SOURCE 26
#define IPV4_PORTS 34
#define IPV4_UDP_SUM 40
#define IPV4_TCP_SUM 50
#define IPV6_SOURCE_HIGH 22
#define IPV6_SOURCE_LOW 30
#define IPV6_PORTS 54
#define IPV6_UDP_SUM 60
#define IPV6_TCP_SUM 70

// Number of 8-byte words of all headers of the shortest frames: IPv4, IPv6 with UDP, and IPv6 with TCP, which has 2
// more bytes.
#define IPV4_WORDS 7
#define IPV6_UDP_WORDS 8
#define IPV6_TCP_WORDS 9

// `Stream` in `live.rs` describes the fields. Their order is that of `Stream::encode`.
struct stream {
    __u64 header[10];
    __u64 is_ipv6;
    __u64 is_tcp;
    __u64 varies_high;
    __u64 network;
    __u64 host_first;
    __u64 host_mask;
    __u64 random_host;
    __u64 source_port;
    __u64 source_ports;
    __u64 destination_port;
    __u64 ip_sum;
    __u64 transport_sum;
};

struct config {
    struct stream streams[STREAMS];
    __u8 pattern[PATTERN];
    __u64 pattern_length;
    __u64 count;
    __u64 duration; // in 1/256 ns, like all times here
    __u64 interval; // 0: as fast as it goes
};

// Only one thread runs the program, so there are no concurrent writes.
struct state {
    __u64 runs;
    __u64 sent;
    __u64 done;
    __u64 round; // of the pattern
    __u64 slot;  // in it
    __u64 begin; // of the first run, in ns
    __u64 now;   // since then
    __u64 last;  // frame sent
    __u64 due;   // the next frame, by the schedule
    __u64 earliest; // time for it, however late it is
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct config);
} configs SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} states SEC(".maps");

// Without a rate, number of frames between two reads of the clock. A read costs as much as half a frame.
#define CLOCK_EVERY 256
// With a rate, maximum number of reads of the clock until the next frame is due: some microseconds. A run that sends no
// frame returns its page to the pool, under a lock that receivers on other cores need as well.
#define READ_AT_MOST 256
// Maximum delay that later frames make up: one second.
#define MOST_BEHIND (1000000000ULL << 8)
// A delay is made up with this number of frames at once, and then at a rate that is a third higher, so that rings of
// receivers do not overflow.
#define BUCKET 32

static __always_inline void read_clock(struct state *state)
{
    __u64 now = bpf_ktime_get_ns();
    if (!state->begin)
        state->begin = now;
    state->now = (now - state->begin) << 8;
}

// Whether the next frame is due. The schedule is that of `Pace` in the userspace generator.
static __always_inline int is_due(const struct config *config, struct state *state)
{
    __u64 interval = config->interval;
    __u64 next = state->due > state->earliest ? state->due : state->earliest;
    for (int i = 0; i < READ_AT_MOST && (!state->begin || state->now < next); i++)
        read_clock(state);
    if (state->now < next)
        return 0;
    if (state->now > MOST_BEHIND && state->due < state->now - MOST_BEHIND)
        state->due = state->now - MOST_BEHIND;
    if (state->now > BUCKET * interval && state->earliest < state->now - BUCKET * interval)
        state->earliest = state->now - BUCKET * interval;
    state->due += interval;
    state->earliest += interval - interval / 4;
    return 1;
}

static __always_inline int may_send(const struct config *config, struct state *state)
{
    if (state->done)
        return 0;
    if (!config->interval && state->runs % CLOCK_EVERY == 0)
        read_clock(state);
    state->runs++;
    int due = !config->interval || is_due(config, state);
    if (state->now >= config->duration || state->sent >= config->count) {
        state->done = 1;
        return 0;
    }
    if (due)
        state->last = state->now;
    return due;
}

// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. The userspace generator uses
// it too, so that both send the same frames.
static __always_inline __u64 scramble(__u64 number)
{
    __u64 mixed = (number + 1) * 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    return mixed ^ (mixed >> 31);
}

// The checksum of a sum of 16-bit words (RFC 1071) in the order of memory.
static __always_inline __u16 checksum(__u64 sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

// A UDP checksum of 0 means that there is none (RFC 768).
static __always_inline __u16 udp_checksum(__u64 sum)
{
    __u16 sent = checksum(sum);
    return sent ? sent : 0xffff;
}

#define copy(data, stream, words)                       \
    _Pragma("unroll") for (int i = 0; i < (words); i++) \
        *(__u64 *)((data) + 8 * i) = (stream)->header[i]

static __always_inline int write_ipv4(void *data, void *end, const struct stream *stream, __u64 host, __u32 ports)
{
    if (data + 8 * IPV4_WORDS > end)
        return XDP_ABORTED;
    copy(data, stream, IPV4_WORDS);
    __u32 source = bpf_htonl((__u32)(stream->network | host));
    __u64 sum = stream->transport_sum + source + ports;
    *(__u32 *)(data + IPV4_SOURCE) = source;
    *(__u32 *)(data + IPV4_PORTS) = ports;
    *(__u16 *)(data + IPV4_SUM) = checksum(stream->ip_sum + source);
    if (stream->is_tcp)
        *(__u16 *)(data + IPV4_TCP_SUM) = checksum(sum);
    else
        *(__u16 *)(data + IPV4_UDP_SUM) = udp_checksum(sum);
    return XDP_TX;
}

static __always_inline int write_ipv6(void *data, void *end, const struct stream *stream, __u64 host, __u32 ports)
{
    if (data + 8 * IPV6_UDP_WORDS > end)
        return XDP_ABORTED;
    copy(data, stream, IPV6_UDP_WORDS);
    __u64 source = bpf_cpu_to_be64(stream->network | host);
    __u64 sum = stream->transport_sum + (source & 0xffffffff) + (source >> 32) + ports;
    if (stream->varies_high)
        *(__u64 *)(data + IPV6_SOURCE_HIGH) = source;
    else
        *(__u64 *)(data + IPV6_SOURCE_LOW) = source;
    *(__u32 *)(data + IPV6_PORTS) = ports;
    // An earlier frame in this page may have been TCP, if the frame is long enough.
    if (data + 8 * IPV6_TCP_WORDS + 2 <= end) {
        *(__u64 *)(data + 8 * IPV6_UDP_WORDS) = stream->header[IPV6_UDP_WORDS];
        *(__u16 *)(data + 8 * IPV6_TCP_WORDS) = *(const __u16 *)&stream->header[IPV6_TCP_WORDS];
        if (stream->is_tcp) {
            *(__u16 *)(data + IPV6_TCP_SUM) = checksum(sum);
            return XDP_TX;
        }
    }
    if (stream->is_tcp)
        return XDP_ABORTED;
    *(__u16 *)(data + IPV6_UDP_SUM) = udp_checksum(sum);
    return XDP_TX;
}

SEC("xdp")
int sequence(struct xdp_md *frame)
{
    __u32 zero = 0;
    const struct config *config = bpf_map_lookup_elem(&configs, &zero);
    struct state *state = bpf_map_lookup_elem(&states, &zero);
    if (!config || !state)
        return XDP_ABORTED; // Cannot be: the maps have this entry.
    if (!may_send(config, state))
        return XDP_DROP;

    __u64 slot = state->slot, round = state->round, number = state->sent;
    const struct stream *stream = &config->streams[config->pattern[slot % PATTERN] % STREAMS];
    __u64 host = (stream->random_host ? scramble(round) : stream->host_first + round) & stream->host_mask;
    __u32 source_port = stream->source_port;
    if (stream->source_ports > 1)
        source_port += (__u32)round % (__u32)stream->source_ports;
    __u32 destination_port = stream->destination_port;
    if (!destination_port)
        destination_port = 1 + (__u32)(((scramble(~number) >> 32) * 65535) >> 32);
    __u32 ports = bpf_htonl(source_port << 16 | destination_port);

    void *data = (void *)(long)frame->data, *end = (void *)(long)frame->data_end;
    int verdict = stream->is_ipv6 ? write_ipv6(data, end, stream, host, ports)
                                  : write_ipv4(data, end, stream, host, ports);
    if (verdict != XDP_TX)
        return verdict;
    state->sent++;
    if (slot + 1 < config->pattern_length) {
        state->slot++;
    } else {
        state->slot = 0;
        state->round++;
    }
    return XDP_TX;
}

SEC("xdp")
int copies(struct xdp_md *frame)
{
    return XDP_TX;
}

char _license[] SEC("license") = "Dual MIT/GPL";
