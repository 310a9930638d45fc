// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/node.h"
#include "tests/shim/shim.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fmt/format.h>
#include <map>
#include <netinet/in.h>
#include <thruway/drop.h>
#include <thruway/flow.h>

namespace thruway::fuzz {
namespace {

constexpr size_t ethernet = 14;

enum class Fate : uint8_t { passed, dropped, sent };

/// What a verdict of this program says, if it is one that the program may give.
std::optional<Fate> fate_of(program hook, int verdict)
{
    static const std::map<int, Fate> of_tc{{-1, Fate::passed}, {2, Fate::dropped}, {7, Fate::sent}};
    static const std::map<int, Fate> of_xdp{{1, Fate::dropped}, {2, Fate::passed}, {3, Fate::sent}, {4, Fate::sent}};
    const auto &fates = hook == PROGRAM_XDP_NET ? of_xdp : of_tc;
    const auto found = fates.find(verdict);
    return found == fates.end() ? std::nullopt : std::optional(found->second);
}

constexpr int xdp_tx = 3; ///< back out by the interface it came in by

uint32_t get16(std::span<const uint8_t> bytes, size_t at)
{
    return static_cast<uint32_t>(bytes[at] << 8 | bytes[at + 1]);
}

void put16(std::span<uint8_t> bytes, size_t at, uint32_t value)
{
    bytes[at] = static_cast<uint8_t>(value >> 8);
    bytes[at + 1] = static_cast<uint8_t>(value);
}

/// RFC 1071: one's complement sum, to be continued.
uint32_t add(std::span<const uint8_t> bytes, uint32_t sum = 0)
{
    for (size_t i = 0; i < bytes.size(); i += 2)
        sum += static_cast<uint32_t>(bytes[i] << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0));
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/// Where the parts of a plain, whole packet lie.
struct Shape {
    bool v6;
    uint8_t protocol;
    size_t transport;
    size_t length; ///< of transport header and payload
};

std::optional<size_t> sum_offset(uint8_t protocol, size_t length)
{
    if (protocol == IPPROTO_TCP && length >= 20)
        return 16;
    if (protocol == IPPROTO_UDP && length >= 8)
        return 6;
    if ((protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) && length >= 8)
        return 2;
    return std::nullopt;
}

std::optional<Shape> shape_of(std::span<const uint8_t> frame)
{
    if (frame.size() < ethernet + 20)
        return std::nullopt;
    if (get16(frame, 12) == 0x0800) {
        const size_t header = (frame[14] & 15U) * 4;
        const size_t total = get16(frame, 16);
        const bool fragment = (get16(frame, 20) & 0x3fff) != 0;
        if (frame[14] >> 4 != 4 || header < 20 || total < header || total + ethernet > frame.size() || fragment)
            return std::nullopt;
        return Shape{false, frame[23], ethernet + header, total - header};
    }
    if (get16(frame, 12) == 0x86dd && frame.size() >= ethernet + 40 && frame[14] >> 4 == 6) {
        const size_t length = get16(frame, 18);
        if (length + ethernet + 40 > frame.size())
            return std::nullopt;
        return Shape{true, frame[20], ethernet + 40, length}; // with extension headers, no protocol that has a sum here
    }
    return std::nullopt;
}

std::span<const uint8_t> transport_of(std::span<const uint8_t> frame, const Shape &shape)
{
    return frame.subspan(shape.transport, shape.length);
}

uint32_t transport_sum(std::span<const uint8_t> frame, const Shape &shape)
{
    uint32_t sum = 0;
    if (shape.protocol != IPPROTO_ICMP) {
        sum = shape.v6 ? add(frame.subspan(22, 32)) : add(frame.subspan(26, 8));
        sum += shape.protocol + static_cast<uint32_t>(shape.length);
    }
    return add(transport_of(frame, shape), sum);
}

uint64_t drops()
{
    static const shim_map &counters = map("drops");
    uint64_t packets = 0;
    for (uint32_t index = 0; index < counters.capacity; index++)
        packets += static_cast<const tw_count *>(*counters.values)[index].packets;
    return packets;
}

/// Each row in use has another half that names it.
template<typename Bucket>
bool all_paired(const char *name)
{
    constexpr uint32_t places = flow_buckets_max * TW_FLOW_WAYS;
    const auto *buckets = static_cast<const Bucket *>(*map(name).values);
    for (uint32_t place = 0; place < places; place++) {
        const tw_flow &row = buckets[place / TW_FLOW_WAYS].row[place % TW_FLOW_WAYS].head;
        if ((row.word & TW_FLOW_STATE) == TW_FLOW_FREE)
            continue;
        if (row.pair >= places)
            return false;
        const tw_flow &other = buckets[row.pair / TW_FLOW_WAYS].row[row.pair % TW_FLOW_WAYS].head;
        if (other.pair != place || (row.flags ^ other.flags) != TW_FLOW_REPLY)
            return false;
    }
    return true;
}

std::string judge_step(const Step &step)
{
    static frame packet;
    const uint64_t drops_before = drops();
    packet.ifindex = ifindex_of(step);
    packet.mark = 0;
    packet.length = static_cast<uint32_t>(step.bytes.size());
    packet.linear = std::clamp<uint32_t>(step.linear, ethernet, packet.length);
    std::memcpy(packet.bytes, step.bytes.data(), step.bytes.size());

    const int verdict = program_run(step.hook, &packet);
    const std::span<const uint8_t> after(packet.bytes, packet.length);
    const auto fate = fate_of(step.hook, verdict);
    if (!fate)
        return fmt::format("verdict {}", verdict);
    // A packet that became an error to its sender counts as dropped.
    const bool answered = fate == Fate::sent && packet.resized != 0;
    if (const uint64_t dropped = drops() - drops_before; dropped != (fate == Fate::dropped || answered ? 1 : 0))
        return fmt::format("verdict {} and {} drops counted", verdict, dropped);
    if (fate == Fate::sent && packet.redirected == 0 && verdict != xdp_tx)
        return "redirected to no interface";
    if (fate == Fate::passed && step.hook == PROGRAM_XDP_NET && !std::ranges::equal(after, step.bytes))
        return "XDP passed a packet that it had changed";
    if (answered) {
        const auto sums = sums_of(after);
        return sums && sums->header && sums->transport ? "" : "an error of our own with a wrong checksum";
    }
    if (fate == Fate::dropped)
        return {};
    if (packet.length != step.bytes.size())
        return fmt::format("length {} became {}", step.bytes.size(), packet.length);
    if (const auto before = sums_of(step.bytes)) {
        const auto now = sums_of(after);
        if (!now)
            return "headers of a good packet are broken";
        if (before->header && !now->header)
            return "IPv4 header checksum was right and is wrong";
        if (before->transport && !now->transport)
            return "transport checksum was right and is wrong";
    }
    return {};
}

} // namespace

std::optional<Sums> sums_of(std::span<const uint8_t> frame)
{
    const auto shape = shape_of(frame);
    if (!shape)
        return std::nullopt;
    Sums sums{true, true};
    if (!shape->v6)
        sums.header = add(frame.subspan(ethernet, shape->transport - ethernet)) == 0xffff;
    const auto at = sum_offset(shape->protocol, shape->length);
    if (!at)
        return sums;
    const bool none = shape->protocol == IPPROTO_UDP && get16(frame, shape->transport + *at) == 0;
    sums.transport = none || transport_sum(frame, *shape) == 0xffff;
    return sums;
}

void repair(std::span<uint8_t> frame)
{
    if (frame.size() < ethernet + 20)
        return;
    const bool v6 = get16(frame, 12) == 0x86dd;
    if (v6 && frame.size() >= ethernet + 40) {
        frame[14] = static_cast<uint8_t>(0x60 | (frame[14] & 15));
        put16(frame, 18, static_cast<uint32_t>(frame.size() - ethernet - 40));
    } else if (get16(frame, 12) == 0x0800) {
        const size_t header = std::clamp<size_t>((frame[14] & 15U) * 4, 20, (frame.size() - ethernet) / 4 * 4);
        frame[14] = static_cast<uint8_t>(0x40 | header / 4);
        put16(frame, 16, static_cast<uint32_t>(frame.size() - ethernet));
        put16(frame, 24, 0);
        put16(frame, 24, ~add(frame.subspan(ethernet, header)));
    }
    const auto shape = shape_of(frame);
    if (!shape)
        return;
    if (shape->protocol == IPPROTO_UDP && shape->length >= 8)
        put16(frame, shape->transport + 4, static_cast<uint32_t>(shape->length));
    if (const auto at = sum_offset(shape->protocol, shape->length)) {
        put16(frame, shape->transport + *at, 0);
        const uint32_t sum = ~transport_sum(frame, *shape) & 0xffff;
        put16(frame, shape->transport + *at, sum == 0 && shape->protocol == IPPROTO_UDP ? 0xffff : sum);
    }
}

std::string judge(std::span<const uint8_t> input)
{
    node_reset();
    size_t number = 0;
    for (const Step &step : steps_of(input)) {
        if (std::string wrong = judge_step(step); !wrong.empty())
            return fmt::format("packet {}: {}", number, wrong);
        number++;
    }
    if (!all_paired<tw_bucket4>("flows4") || !all_paired<tw_bucket6>("flows6"))
        return "a flow row has no other half";
    return {};
}

} // namespace thruway::fuzz
