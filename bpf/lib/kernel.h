/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What every program starts from: the kernel's user API, libbpf's helpers, and a few words that C lacks. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s16 s16;
typedef __s32 s32;

#define bool _Bool
#define true 1
#define false 0

#define inline_always static __always_inline
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Values of the user API that older uapi headers lack or that live outside of it. */
enum {
    VERDICT_NEXT = -1, /* TCX_NEXT, and TC_ACT_UNSPEC of a clsact filter: the next program at this hook decides */
    VERDICT_DROP = 2,  /* TCX_DROP, TC_ACT_SHOT */
};

/* What is read of the kernel's own packet buffer, at the offsets that it has in the kernel that runs. */
struct sk_buff {
    u8 ip_summed : 2; /* enum checksum_kind */
} __attribute__((preserve_access_index));

enum checksum_kind { /* CHECKSUM_* of include/linux/skbuff.h */
                     CHECKSUM_NONE,
                     CHECKSUM_UNNECESSARY,
                     CHECKSUM_COMPLETE, /* the device has computed the sum of all of the packet */
                     CHECKSUM_PARTIAL,  /* the device is to compute the checksum; its place holds the sum of the
                                           pseudo-header */
};

/* The kernel's own packet buffer behind the context, from Linux 6.2 on (kernel/bpf/helpers.c). It costs no call. Each
 * object file has a name of its own for it, since bpftool (7.5) cannot link two that call the same kernel function;
 * what follows "___" means nothing to libbpf. */
#define NAME_OF_OBJECT(name, object) name##___##object
#define NAME_IN_OBJECT(name, object) NAME_OF_OBJECT(name, object)
#define bpf_cast_to_kern_ctx NAME_IN_OBJECT(bpf_cast_to_kern_ctx, TW_OBJECT)

extern void *bpf_cast_to_kern_ctx(void *ctx) __weak __ksym;

/* What the kernel lets tc programs ask conntrack (net/netfilter/nf_conntrack_bpf.c, from Linux 5.19 on). */
struct nf_conn {
    u64 unused; /* its members do not matter; but to libbpf a type without any is not the kernel's */
};

struct bpf_ct_opts {
    s32 netns_id;
    s32 error;
    u8 l4proto;
    u8 dir;
    u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, u32 tuple__sz,
                                         struct bpf_ct_opts *opts, u32 opts__sz) __weak __ksym;
extern void bpf_ct_release(struct nf_conn *connection) __weak __ksym;

/* Whether there is a conntrack to ask. It may be a module that is not loaded. That type comes and goes with the
 * functions, whose own addresses programs may look at only from Linux 6.4 on. */
#define conntrack_answers() bpf_core_type_exists(struct bpf_ct_opts)

/* Read or write memory that other CPUs change, exactly once. */
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

/* The compiler keeps memory accesses on their side of this. */
#define compiler_barrier() asm volatile("" ::: "memory")

/* Atomic operations that all memory accesses keep to their side of, on every architecture. In BPF only those that
 * return the old value are such barriers: without it the compiler emits, and arm64 executes (STADD), an unordered one.
 */
#define ordered(operation)                                                                                             \
    ({                                                                                                                 \
        typeof(operation) old = operation;                                                                             \
        asm volatile("" : : "r"(old) : "memory");                                                                      \
        old;                                                                                                           \
    })

/* The low bits of a value, masked where the verifier sees it last: the compiler, which may know that there are no
 * others, can neither leave it out nor move it. */
#define masked(value, mask)                                                                                            \
    ({                                                                                                                 \
        u64 low = (value);                                                                                             \
        asm volatile("%0 &= %1" : "+r"(low) : "i"(mask));                                                              \
        low;                                                                                                           \
    })
