/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* ICMP errors of others on their way through a translation. An error quotes the packet that it is about as it was when
 * it left us, and goes to that packet's source. So the quoted tuple, turned round, is the key of the row that packets
 * of the error's direction have, and that row says what the other side knows the ends as. Errors change nothing in a
 * row and keep no flow alive; an MTU that one tells is passed on, whatever it is, and not kept.
 *
 * Such a packet's checksums are complete: whoever makes errors, makes them in software. So plain arithmetic is right
 * for them, and what it does to the bytes under an ICMP checksum sums up to nothing, as a sum by the device wants it.
 */

#include "deliver.h"
#include "drop.h"
#include "open.h"

/* How far into an error we must be able to see: two IP headers with options or extensions, and a checksum. */
enum { ERROR_REACH = 512 };

/* Room that does not fit on the BPF stack. */
struct error_room {
    struct packet quote;
    struct flow flow;
    struct tuple key;   /* the quoted tuple, turned round */
    struct tuple inner; /* what the quoted tuple and the error's own become */
    struct tuple outer;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct error_room);
} MAP(error_room);

inline_always struct error_room *error_room_get(void)
{
    return bpf_map_lookup_elem(&error_room, &(u32){0});
}

/* Reads the packet that an error quotes. Only its first bytes must be there: 8 of transport (RFC 792), so lengths are
 * not looked at. */
inline_always bool quote_parse(void *data, void *end, const struct packet *p, struct packet *quote, const bool v6)
{
    u32 at = p->transport + sizeof(struct icmp_header), room = 0xffff;
    struct icmp_header *icmp;
    struct port_header *ports;
    void *transport;

    if (at + sizeof(struct ipv6hdr) + sizeof(struct icmp_header) > HEADERS_MAX)
        return false;
    if (v6) {
        struct ipv6hdr *ip = packet_at(data, at);

        if ((void *)(ip + 1) > end || ip->version != 6)
            return false;
        __builtin_memcpy(&quote->tuple.source, &ip->saddr, sizeof(ip->saddr));
        __builtin_memcpy(&quote->tuple.destination, &ip->daddr, sizeof(ip->daddr));
        quote->tuple.protocol = ip->nexthdr;
        quote->transport = at + sizeof(*ip);
        if (parse_extensions(data, end, quote, &room) || quote->kind == KIND_FRAGMENT)
            return false;
    } else {
        struct iphdr *ip = packet_at(data, at);

        if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5 || ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
            return false;
        quote->tuple.source = address_from4(ip->saddr);
        quote->tuple.destination = address_from4(ip->daddr);
        quote->tuple.protocol = ip->protocol;
        quote->transport = at + ip->ihl * 4;
    }
    transport = packet_transport(data, quote);
    ports = transport;
    icmp = transport;
    if ((void *)(icmp + 1) > end)
        return false;
    switch (quote->tuple.protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
        quote->tuple.source_port = ports->source;
        quote->tuple.destination_port = ports->destination;
        return true;
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
        if (icmp->type == (v6 ? ICMP6_ECHO : ICMP4_ECHO))
            quote->tuple.source_port = icmp->identifier;
        else if (icmp->type == (v6 ? ICMP6_ECHO_REPLY : ICMP4_ECHO_REPLY))
            quote->tuple.destination_port = icmp->identifier;
        else
            return false;
        return true;
    default:
        return false;
    }
}

enum { QUOTED_AT_LEAST = 8 }; /* bytes of the transport header (RFC 792) */

/* The flow that an error belongs to, with the row of the error's direction. An error that goes elsewhere than to the
 * source of the packet that it quotes is made up. */
inline_always enum tw_drop error_find(struct __sk_buff *skb, const struct packet *p, struct error_room *room,
                                      const bool v6)
{
    struct packet *quote = &room->quote;
    struct flow *f = &room->flow;
    struct tw_flow *row;

    __builtin_memset(quote, 0, sizeof(*quote));
    if (bpf_skb_pull_data(skb, skb->len < ERROR_REACH ? skb->len : ERROR_REACH) ||
        !quote_parse((void *)(long)skb->data, (void *)(long)skb->data_end, p, quote, v6) ||
        !address_equal(&quote->tuple.source, &p->tuple.destination) ||
        quote->transport + QUOTED_AT_LEAST > packet_end((void *)(long)skb->data, (void *)(long)skb->data_end, v6))
        return TW_DROP_UNSOLICITED_ERROR;
    tuple_reverse(&quote->tuple, &room->key);
    switch (flow_find(&room->key, f, &row, flow_now(), v6)) {
    case FLOW_FOUND:
        return TW_PASS;
    case FLOW_STALE:
        return route(skb, skb->ifindex, &f->to.destination, &p->tuple.source, &f->next);
    default:
        return TW_DROP_UNSOLICITED_ERROR;
    }
}

/* The quoted checksum after the rewrite, if the quote reaches it. Adds to `sum` what changes. */
inline_always void quote_checksum(void *data, void *end, const struct packet *quote, const struct tuple *to, u64 *sum,
                                  const bool v6)
{
    u8 protocol = quote->tuple.protocol;
    u32 at = quote->transport + checksum_offset(protocol);
    u16 *field = packet_at(data, at), before;
    u64 change = sum_ports(&quote->tuple, to);

    if (!checksum_offset(protocol) || (void *)(field + 1) > end || at + sizeof(*field) > packet_end(data, end, v6))
        return;
    before = *field;
    if (protocol == IPPROTO_UDP && !before)
        return;
    if (protocol != IPPROTO_ICMP)
        change += sum_addresses(&quote->tuple, to, v6);
    *field = checksum_after(before, change);
    if (protocol == IPPROTO_UDP && !*field)
        *field = 0xffff;
    *sum = sum_change(*sum, before, *field);
}

/* Who an error is to come from: whoever it does come from (a router, mostly), but for the flow's other end, which goes
 * by another name here, and for what leaves this node again. That is ours to send under no address but the flow's own
 * (RFC 5508 section 4.2, REQ-5 c), and its way may lead through that very router, which takes nothing that comes from
 * itself. */
inline_always const struct tw_address *error_source(const struct packet *p, const struct error_room *room)
{
    if (room->flow.next >= config.endpoints_max || address_equal(&p->tuple.source, &room->key.source))
        return &room->flow.to.source;
    return &p->tuple.source;
}

/* Rewrites an error as the row says. */
inline_always bool error_rewrite(void *data, void *end, const struct packet *p, struct error_room *room, const bool v6)
{
    const struct tuple *to = &room->flow.to;
    void *quoted = packet_at(data, p->transport + sizeof(struct icmp_header));
    struct icmp_header *icmp = packet_transport(data, p);
    struct packet *quote = &room->quote;
    u64 sum;

    tuple_reverse(to, &room->inner);
    sum = sum_ports(&quote->tuple, &room->inner);
    quote_checksum(data, end, quote, &room->inner, &sum, v6);
    if (!nat_write_ports(packet_transport(data, quote), end, &room->inner) ||
        !nat_write_addresses(quoted, end, &quote->tuple, &room->inner, v6))
        return false;
    room->outer.source = *error_source(p, room);
    room->outer.destination = to->destination;
    if (!nat_write_addresses(data + ETH_HLEN, end, &p->tuple, &room->outer, v6))
        return false;
    /* An IPv4 header sums up to nothing before and after. IPv6 has no sum of its own, neither here nor in the quote. */
    if (v6)
        sum += sum_addresses(&quote->tuple, &room->inner, true) + sum_addresses(&p->tuple, &room->outer, true);
    if ((void *)(icmp + 1) > end)
        return false;
    icmp->checksum = checksum_after(icmp->checksum, sum);
    return true;
}

inline_always enum tw_drop error_translate(struct __sk_buff *skb, const struct packet *p, struct error_room *room,
                                           const bool v6)
{
    if (room->flow.flags & TW_FLOW_TRANSLATED &&
        !error_rewrite((void *)(long)skb->data, (void *)(long)skb->data_end, p, room, v6))
        return TW_DROP_REWRITE_FAILED;
    room->flow.flags &= ~TW_FLOW_TRANSLATED;
    return TW_PASS;
}

/* Sends an error of somebody else on to where its flow's row says. */
inline_always int error_forward(struct __sk_buff *skb, const struct packet *p, struct error_room *room,
                                enum tw_hook hook, const bool v6)
{
    u32 length = skb->len;
    int verdict, reason = error_translate(skb, p, room, v6);

    if (reason)
        return drop(reason, hook, length);
    verdict = deliver(skb, p, &room->flow, &reason, false, v6);
    return verdict == VERDICT_DROP ? drop(reason, hook, length) : verdict;
}

/* Errors that the host stack sends: about what it got translated from us, or about anything else of its own. */
inline_always int host_error(struct __sk_buff *skb, const struct packet *p, enum tw_hook hook, const bool v6)
{
    struct error_room *room = error_room_get();
    enum tw_drop reason;

    if (!room || error_find(skb, p, room, v6))
        return VERDICT_NEXT;
    reason = error_translate(skb, p, room, v6);
    return reason ? drop(reason, hook, skb->len) : VERDICT_NEXT;
}

__weak int host_error4(struct __sk_buff *skb, const struct packet *p, u32 hook)
{
    return p ? host_error(skb, p, hook, false) : VERDICT_NEXT;
}

__weak int host_error6(struct __sk_buff *skb, const struct packet *p, u32 hook)
{
    return p ? host_error(skb, p, hook, true) : VERDICT_NEXT;
}
