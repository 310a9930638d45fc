/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets in memory, and the kernel's helpers for them. A packet lies below 4 GiB, since the programs see its address
 * as a u32, and what they must not reach is poisoned: a read or write of one byte too many ends the process. */

#include "programs.h"
#include "tests/shim/bpf/bpf_helpers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

int program_call(enum program program, void *ctx);

__u32 shim_random;
__u32 shim_uplink;

enum { ARENA = 8192, HEADROOM = 256 }; /* inputs are shorter, see steps_of() */

/* The packet that a program is working on: what it can reach lies in the arena, the rest in `frame`. */
static unsigned char *arena;
static struct frame *frame;
static enum program running;

static unsigned char *linear_start(void)
{
    return arena + HEADROOM;
}

static void fence(void)
{
    ASAN_POISON_MEMORY_REGION(arena, ARENA);
    ASAN_UNPOISON_MEMORY_REGION(linear_start(), frame->linear);
}

static void show(struct __sk_buff *skb)
{
    fence();
    skb->data = (__u32)(uintptr_t)linear_start();
    skb->data_end = skb->data + frame->linear;
    skb->len = frame->length;
}

static int run_tc(void)
{
    struct __sk_buff skb = {.ifindex = frame->ifindex, .mark = frame->mark};
    __u16 protocol;
    int verdict;

    memcpy(&protocol, frame->bytes + offsetof(struct ethhdr, h_proto), sizeof(protocol));
    skb.protocol = protocol;
    show(&skb);
    verdict = program_call(running, &skb);
    frame->mark = skb.mark;
    return verdict;
}

static int run_xdp(void)
{
    __u32 start = (__u32)(uintptr_t)linear_start();
    struct xdp_md xdp = {.data = start, .data_end = start + frame->linear, .ingress_ifindex = frame->ifindex};

    fence();
    return program_call(running, &xdp);
}

int program_run(enum program program, struct frame *in)
{
    int verdict;

    if (in->length > ARENA / 2)
        abort();
    if (!arena) {
        arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        if (arena == MAP_FAILED)
            abort();
    }
    frame = in;
    frame->redirected = 0;
    frame->resized = false;
    running = program;
    ASAN_UNPOISON_MEMORY_REGION(arena, ARENA);
    memcpy(linear_start(), frame->bytes, frame->linear);
    verdict = running == PROGRAM_XDP_NET ? run_xdp() : run_tc();
    memcpy(frame->bytes, linear_start(), frame->linear);
    ASAN_UNPOISON_MEMORY_REGION(arena, ARENA);
    return verdict;
}

/* No device has had to do with the checksums of these packets. */
void *bpf_cast_to_kern_ctx(void *ctx)
{
    static __u64 all_zero;

    (void)ctx;
    return &all_zero;
}

long bpf_skb_pull_data(struct __sk_buff *skb, __u32 length)
{
    if (length == 0)
        length = frame->linear;
    if (length > frame->length)
        return -ENOMEM;
    if (length > frame->linear) {
        ASAN_UNPOISON_MEMORY_REGION(arena, ARENA);
        memcpy(linear_start() + frame->linear, frame->bytes + frame->linear, length - frame->linear);
        frame->linear = length;
    }
    show(skb);
    return 0;
}

/* A place in the packet that the kernel may write to; it first makes it reachable (skb_ensure_writable). */
static unsigned char *writable(struct __sk_buff *skb, __u32 offset, __u32 size)
{
    if (offset > 0xffff || offset + size > frame->length)
        return NULL;
    if (offset + size > frame->linear)
        bpf_skb_pull_data(skb, offset + size);
    return linear_start() + offset;
}

long bpf_skb_load_bytes(const struct __sk_buff *skb, __u32 offset, void *to, __u32 size)
{
    (void)skb;
    if (offset > 0xffff || offset + size > frame->length)
        return -EFAULT;
    for (__u32 i = 0; i < size; i++, offset++)
        ((unsigned char *)to)[i] = offset < frame->linear ? linear_start()[offset] : frame->bytes[offset];
    return 0;
}

long bpf_skb_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 size, __u64 flags)
{
    unsigned char *at = writable(skb, offset, size);

    if (flags & ~(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
        return -EINVAL;
    if (!at)
        return -EFAULT;
    memcpy(at, from, size);
    return 0;
}

long bpf_skb_change_tail(struct __sk_buff *skb, __u32 length, __u64 flags)
{
    if (flags || length < sizeof(struct ethhdr) || length > sizeof(frame->bytes))
        return -EINVAL;
    bpf_skb_pull_data(skb, frame->length);
    ASAN_UNPOISON_MEMORY_REGION(arena, ARENA);
    if (length > frame->length)
        memset(linear_start() + frame->length, 0, length - frame->length);
    frame->length = frame->linear = length;
    frame->resized = true;
    show(skb);
    return 0;
}

/* Takes room away behind the Ethernet header. */
long bpf_skb_adjust_room(struct __sk_buff *skb, __s32 change, __u32 mode, __u64 flags)
{
    __u32 cut = -change, network = sizeof(struct ethhdr);
    unsigned char *start = linear_start();

    if (change >= 0 || mode != BPF_ADJ_ROOM_MAC || flags || network + cut + 20 > frame->length)
        return -EOPNOTSUPP;
    bpf_skb_pull_data(skb, frame->length);
    ASAN_UNPOISON_MEMORY_REGION(arena, ARENA);
    memmove(start + network, start + network + cut, frame->length - network - cut);
    frame->length = frame->linear = frame->length - cut;
    frame->resized = true;
    show(skb);
    return 0;
}

/* net/core/filter.c, for a packet whose checksum is complete (CHECKSUM_NONE): there pseudo-header or not is all one. */
long bpf_l4_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)
{
    unsigned char *at = writable(skb, offset, 2);
    __u16 checksum;
    __u64 sum;

    if (offset & 1 || flags & ~(BPF_F_MARK_MANGLED_0 | BPF_F_PSEUDO_HDR | BPF_F_HDR_FIELD_MASK))
        return -EINVAL;
    if (!at)
        return -EFAULT;
    memcpy(&checksum, at, 2);
    if (flags & BPF_F_MARK_MANGLED_0 && !checksum)
        return 0;
    sum = (__u16)~checksum;
    sum += (__u32)to;
    if (flags & BPF_F_HDR_FIELD_MASK)
        sum += (__u32)~from;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    checksum = ~sum;
    if (flags & BPF_F_MARK_MANGLED_0 && !checksum)
        checksum = 0xffff;
    memcpy(at, &checksum, 2);
    return 0;
}

__s64 bpf_csum_update(struct __sk_buff *skb, __u32 sum)
{
    (void)skb, (void)sum;
    return -EOPNOTSUPP; /* no device has computed the sum of this packet */
}

__u64 bpf_xdp_get_buff_len(struct xdp_md *xdp)
{
    (void)xdp;
    return frame->length;
}

/* Stands still: the clock of flows. */
__u64 bpf_jiffies64(void)
{
    return 0;
}

/* Goes on, for what has a limit in time. */
__u64 bpf_ktime_get_coarse_ns(void)
{
    static __u64 calls;

    return (100ULL << 32) + (calls++ % 64 << 26);
}

__u32 bpf_get_prandom_u32(void)
{
    return shim_random;
}

long bpf_redirect(__u32 ifindex, __u64 flags)
{
    const bool xdp = running == PROGRAM_XDP_NET;

    if (flags & ~(xdp ? 0ULL : BPF_F_INGRESS))
        return xdp ? XDP_ABORTED : TC_ACT_SHOT;
    frame->redirected = ifindex;
    return xdp ? XDP_REDIRECT : TC_ACT_REDIRECT;
}

long bpf_redirect_peer(__u32 ifindex, __u64 flags)
{
    return flags ? TC_ACT_SHOT : bpf_redirect(ifindex, 0);
}

long bpf_redirect_neigh(__u32 ifindex, struct bpf_redir_neigh *neighbour, int size, __u64 flags)
{
    if (flags || (neighbour ? size != sizeof(*neighbour) : size))
        return TC_ACT_SHOT;
    return bpf_redirect(ifindex, 0);
}

/* The node has no sockets. */
struct bpf_sock *bpf_skc_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags)
{
    (void)ctx, (void)tuple, (void)size, (void)netns, (void)flags;
    return NULL;
}

struct bpf_sock *bpf_sk_lookup_udp(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags)
{
    return bpf_skc_lookup_tcp(ctx, tuple, size, netns, flags);
}

long bpf_sk_release(struct bpf_sock *socket)
{
    (void)socket;
    return 0;
}

/* Routing: the node's own network by the uplink, all else by a gateway there. */
long bpf_fib_lookup(void *ctx, struct bpf_fib_lookup *fib, int size, __u32 flags)
{
    (void)ctx, (void)flags;
    if (size < (int)sizeof(*fib))
        return -EINVAL;
    if (fib->family == 2 && (ntohl(fib->ipv4_dst) & 0xffffff00) != 0xac140000)
        fib->ipv4_dst = htonl(0xac140001);
    else if (fib->family != 2 && (fib->ipv6_dst[0] != htonl(0xfd200000) || fib->ipv6_dst[1])) {
        const __u32 gateway[4] = {htonl(0xfd200000), 0, 0, htonl(1)};
        memcpy(fib->ipv6_dst, gateway, sizeof(gateway));
    }
    fib->ifindex = shim_uplink;
    return BPF_FIB_LKUP_RET_NO_NEIGH;
}
