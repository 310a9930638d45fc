// SPDX-License-Identifier: Apache-2.0
// What the fuzzer runs is what the kernel runs: every input of its corpus has the same outcome in both.
#include "tests/datapath/world.h"
#include "tests/fuzz/node.h"

#include <algorithm>
#include <bpf/bpf.h>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <netinet/in.h>

using namespace thruway;
using namespace thruway::test;
using thruway::fuzz::Step;

namespace {

constexpr uint32_t snat_first = 49152;

/// Maps that say where packets go; those that packets write to begin empty on both sides.
constexpr std::array tables{
    "frontends",           "services",  "slots",        "backends", "endpoints", "node_addresses",
    "node_port_addresses", "addresses", "nodes",        "gateways", "ifindexes", "nexthops",
    "generations",         "vips",      "service_cidrs"};

/// Copies a map of the kernel's into the one of the same name in userspace.
void copy_map(const char *name)
{
    const shim_map &to = fuzz::map(name);
    const Fd from(bpf_obj_get(fmt::format("{}/{}", pins, name).c_str()));
    REQUIRE(from.get() >= 0);
    shim_clear(&to);
    std::vector<char> key(to.key_size);
    std::vector<char> value(to.value_size);
    for (const void *at = nullptr; bpf_map_get_next_key(from.get(), at, key.data()) == 0; at = key.data()) {
        REQUIRE(bpf_map_lookup_elem(from.get(), key.data(), value.data()) == 0);
        if (to.type != BPF_MAP_TYPE_ARRAY || std::ranges::any_of(value, [](char byte) { return byte != 0; }))
            REQUIRE(shim_update(&to, key.data(), value.data(), BPF_ANY) == 0);
    }
}

/// BPF_PROG_TEST_RUN refuses IP packets without a whole header (net/bpf/test_run.c).
bool kernel_takes(const Bytes &frame)
{
    const int type = frame.at(12) << 8 | frame.at(13);
    return (type != 0x0800 || frame.size() >= 34) && (type != 0x86dd || frame.size() >= 54);
}

/// Source port, or identifier of an ICMP echo, in host byte order; of no meaning if the frame has neither.
uint32_t source_port(const Bytes &frame)
{
    const bool v6 = frame.at(12) == 0x86;
    if (!kernel_takes(frame) || frame.size() < 34)
        return 0;
    uint8_t protocol = v6 ? frame[20] : frame[23];
    size_t transport = v6 ? 54 : 14 + (frame[14] & 15U) * 4;
    const auto extends = [](int kind) {
        return kind == IPPROTO_HOPOPTS || kind == IPPROTO_ROUTING || kind == IPPROTO_FRAGMENT ||
               kind == IPPROTO_DSTOPTS;
    };
    while (v6 && extends(protocol) && transport + 2 <= frame.size()) {
        const size_t length = protocol == IPPROTO_FRAGMENT ? 8 : (frame[transport + 1] + 1U) * 8;
        protocol = frame[transport];
        transport += length;
    }
    const size_t at = transport + (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? 4 : 0);
    return at + 2 <= frame.size() ? static_cast<uint32_t>(frame[at] << 8 | frame[at + 1]) : 0;
}

/// A node in the kernel and its copy in userspace.
class Twins {
public:
    Twins()
    {
        for (const unsigned number : fuzz::pods)
            pods_.push_back(&world_.pod(number));
        for (const fuzz::ServiceText &service : fuzz::services())
            world_.service(service.name, service.frontends, service.backends, static_cast<Protocol>(service.protocol));
        fuzz::node_setup();
        for (const char *name : tables)
            copy_map(name);
        shim_uplink = world_.uplink.index;
    }

    /// Runs the packet in both. Only the kernel's port for SNAT is a matter of chance: userspace gets the same.
    void step(const Step &step)
    {
        Bytes packet(step.bytes.begin(), step.bytes.end());
        if (!kernel_takes(packet))
            return;
        if (std::equal(fuzz::uplink_mac.begin(), fuzz::uplink_mac.end(), packet.begin()))
            std::ranges::copy(world_.uplink.mac, packet.begin());
        const Outcome kernel = in_kernel(step, packet);
        shim_random = source_port(kernel.frame.bytes) - snat_first;
        static struct frame own;
        own.ifindex = interface_of(step);
        own.mark = 0;
        own.length = own.linear = static_cast<uint32_t>(packet.size());
        std::ranges::copy(packet, own.bytes);
        const int verdict = program_run(step.hook, &own);
        INFO("hook " << step.hook << ", " << Frame{packet});
        const bool xdp = step.hook == PROGRAM_XDP_NET;
        const int dropped = xdp ? xdp_drop : verdict_drop;
        const bool limited = own.resized && kernel.verdict == dropped; // errors have a limit in time
        CHECK((verdict == kernel.verdict || limited));
        if (verdict != dropped && !limited) {
            CHECK(Frame{Bytes(own.bytes, own.bytes + own.length)} == kernel.frame);
            CHECK(own.mark == kernel.mark);
        }
        // Neither an error nor what XDP leaves to tc says which port the packet's new flow has got.
        if (own.resized || (xdp && verdict == xdp_pass))
            forget_flows();
    }

    void forget_flows()
    {
        for (uint32_t i = 0; i < world_.arrays.flows4.size(); i++)
            world_.arrays.flows4[i] = {};
        for (uint32_t i = 0; i < world_.arrays.flows6.size(); i++)
            world_.arrays.flows6[i] = {};
        for (uint32_t i = 0; i < TW_FRAGMENTS; i++)
            world_.arrays.fragments[i] = {};
        fuzz::node_reset();
    }

private:
    Outcome in_kernel(const Step &step, const Bytes &packet)
    {
        const PodSpec &pod = *pods_.at(step.port);
        switch (step.hook) {
        case PROGRAM_FROM_POD:
            return world_.from_pod(pod, packet);
        case PROGRAM_TO_POD:
            return world_.to_pod(pod, packet);
        case PROGRAM_FROM_NET:
            return world_.from_net(packet);
        case PROGRAM_TO_NET:
            return world_.to_net(packet);
        default:
            return world_.xdp_net(packet);
        }
    }

    [[nodiscard]] uint32_t interface_of(const Step &step) const
    {
        const bool at_pod = step.hook == PROGRAM_FROM_POD || step.hook == PROGRAM_TO_POD;
        return at_pod ? pods_.at(step.port)->ifindex : world_.uplink.index;
    }

    World world_;
    std::vector<const PodSpec *> pods_;
};

/// All inputs of the fuzzer's corpus.
std::vector<Bytes> corpus()
{
    std::vector<Bytes> inputs;
    const char *folder = std::getenv("THRUWAY_FUZZ_CORPUS");
    REQUIRE(folder != nullptr);
    for (const auto &entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream file(entry.path(), std::ios::binary);
        inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return inputs;
}

} // namespace

TEST_CASE("the kernel makes of each input of the fuzzer what userspace makes of it")
{
    Twins twins;
    const std::vector<Bytes> inputs = corpus();
    REQUIRE_FALSE(inputs.empty());
    for (const Bytes &input : inputs) {
        twins.forget_flows();
        for (const Step &step : fuzz::steps_of(input))
            twins.step(step);
    }
}
