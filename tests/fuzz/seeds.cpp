// SPDX-License-Identifier: Apache-2.0
// Writes the inputs that the fuzzer begins with: the conversations of the datapath tests, and packets that
// are seldom: errors about live flows, fragments, extension headers, tags.
#include "tests/datapath/packet.h"
#include "tests/fuzz/input.h"

#include <array>
#include <fmt/format.h>
#include <fstream>
#include <netinet/in.h>
#include <string>
#include <vector>

using namespace thruway::fuzz;
using namespace thruway::test;

namespace {

thruway::Address host(const std::string &text)
{
    return *thruway::Address::parse(text.starts_with('[') ? text.substr(1, text.size() - 2) : text);
}

class Seeds {
public:
    explicit Seeds(std::string folder) : folder_(std::move(folder)) {}

    void write(const std::vector<uint8_t> &input)
    {
        std::ofstream file(fmt::format("{}/seed-{:03}", folder_, count_++), std::ios::binary);
        file.write(reinterpret_cast<const char *>(input.data()), static_cast<std::streamsize>(input.size()));
    }

    /// A packet that comes by one hook, and an answer to what it became, by another.
    void conversation(program there, const Packet &request, program back, const Packet &answer)
    {
        std::vector<uint8_t> input;
        append_step(input, there, 0, request.build());
        append_step(input, back, 1, answer.build());
        append_step(input, there, 0, request.with_flags(ack).build());
        append_step(input, back, 1, answer.with_flags(fin | ack).build());
        append_step(input, there, 0, request.with_flags(rst).build());
        write(input);
    }

    void alone(program hook, const Packet &packet)
    {
        std::vector<uint8_t> input;
        append_step(input, hook, 0, packet.build());
        write(input);
    }

private:
    std::string folder_;
    unsigned count_ = 0;
};

/// Whose packets: a pod's, to a service with this backend, and a router on the way.
struct Odd {
    std::string client, vip, backend, router;
};

/// Errors about packets of a live flow, as long as they may be and cut short at each header; about one of no flow.
void write_errors(Seeds &seeds, const Odd &odd)
{
    const Packet request = tcp(odd.client + ":1000", odd.vip + ":80");
    const Packet sent = tcp(odd.client + ":1000", odd.backend + ":8080");
    const Packet stray = tcp(odd.client + ":1001", odd.backend + ":8080");
    for (const Fault fault : {Fault::port_unreachable, Fault::too_big, Fault::hops_exceeded, Fault::parameter})
        for (const size_t size : {64UL, 28UL, 20UL, 8UL, 0UL})
            for (const Packet &about : {sent, stray, request}) {
                std::vector<uint8_t> input;
                append_step(input, PROGRAM_FROM_POD, 0, request.build());
                append_step(input, PROGRAM_FROM_NET, 0, error(fault, host(odd.router), about, size, 1280).build());
                append_step(input, PROGRAM_FROM_POD, 1, error(fault, host(odd.backend), about, size, 1280).build());
                seeds.write(input);
            }
}

/// Fragments in order, the wrong way round, overlapping, and without the first.
void write_fragments(Seeds &seeds, const Odd &odd)
{
    const Packet whole = udp(odd.client + ":1000", odd.vip + ":53").with_payload(200);
    const auto part = [&](size_t offset, size_t size) { return whole.fragment(offset, size).build(); };
    const Bytes first = part(0, 64), second = part(64, 64), last = part(128, 80), over = part(32, 64);
    for (const std::vector<Bytes> &order :
         {std::vector{first, second, last}, {last, second, first}, {first, over, last}, {second, last}}) {
        std::vector<uint8_t> input;
        for (const Bytes &bytes : order)
            append_step(input, PROGRAM_FROM_POD, 0, bytes);
        seeds.write(input);
    }
}

constexpr std::array<uint8_t, 4> extension_headers{IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_AH};

void write_headers(Seeds &seeds, const Odd &odd)
{
    const Packet request = tcp(odd.client + ":1000", odd.vip + ":80");
    Packet options = request;
    options.options = {1, 1, 1, 0};
    seeds.alone(PROGRAM_FROM_POD, options);
    for (const uint8_t kind : extension_headers) {
        Packet extended = request;
        extended.extensions = {{kind, Bytes(8)}, {IPPROTO_DSTOPTS, Bytes(16)}};
        seeds.alone(PROGRAM_FROM_POD, extended);
    }
    seeds.conversation(PROGRAM_FROM_POD, sctp(odd.client + ":1000", odd.vip + ":80"), PROGRAM_FROM_POD,
                       sctp(odd.backend + ":8080", odd.client + ":1000"));
    for (const char *port : {":80", ":81"}) // that is served, or not
        for (const Chunk chunk : {Chunk::init, Chunk::abort})
            seeds.conversation(PROGRAM_FROM_POD, with_chunk(sctp(odd.client + ":1001", odd.vip + port), Chunk::init),
                               PROGRAM_FROM_POD, with_chunk(sctp(odd.backend + ":8080", odd.client + ":1001"), chunk));
    Bytes tagged = request.build();
    const Bytes tag{0x81, 0, 0, 7};
    tagged.insert(tagged.begin() + 12, tag.begin(), tag.end());
    for (const program hook : {PROGRAM_FROM_POD, PROGRAM_FROM_NET, PROGRAM_TO_NET}) {
        std::vector<uint8_t> input;
        append_step(input, hook, 0, tagged);
        seeds.write(input);
    }
}

void write_all(Seeds &seeds)
{
    for (const Odd &odd : {Odd{"10.244.1.2", "10.96.0.1", "10.244.1.3", "192.0.2.254"},
                           Odd{"10.244.1.2", "10.96.0.2", "10.244.2.9", "192.0.2.254"},
                           Odd{"10.244.1.2", "10.96.0.6", "10.244.1.3", "192.0.2.254"},
                           Odd{"10.244.1.2", "10.96.0.10", "10.244.2.9", "192.0.2.254"},
                           Odd{"[fd00:10:244:1::2]", "[fd96::1]", "[fd00:10:244:1::3]", "[2001:db8::fe]"},
                           Odd{"[fd00:10:244:1::2]", "[fd96::2]", "[fd00:10:244:2::9]", "[2001:db8::fe]"},
                           Odd{"[fd00:10:244:1::2]", "[fd96::10]", "[fd00:10:244:2::9]", "[2001:db8::fe]"}}) {
        write_errors(seeds, odd);
        write_fragments(seeds, odd);
        write_headers(seeds, odd);
    }
    const auto answer = [](const char *from, const char *to) { return tcp(from, to, syn | ack); };
    seeds.conversation(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.244.1.3:80"), PROGRAM_FROM_POD,
                       answer("10.244.1.3:80", "10.244.1.2:1000"));
    seeds.conversation(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.1:80"), PROGRAM_FROM_POD,
                       answer("10.244.1.3:8080", "10.244.1.2:1000"));
    seeds.conversation(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.2:80"), PROGRAM_FROM_NET,
                       answer("10.244.2.9:8080", "10.244.1.2:1000"));
    seeds.conversation(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.3:80"), PROGRAM_FROM_POD,
                       answer("10.244.1.2:80", "172.20.0.11:49152"));
    seeds.conversation(PROGRAM_FROM_NET, tcp("192.0.2.1:1000", "172.20.0.11:30080"), PROGRAM_FROM_POD,
                       answer("10.244.1.3:8080", "172.20.0.11:49152"));
    seeds.conversation(PROGRAM_FROM_NET, tcp("192.0.2.1:1000", "172.20.0.11:30081"), PROGRAM_FROM_NET,
                       answer("10.244.2.9:8080", "172.20.0.11:49152"));
    seeds.conversation(PROGRAM_FROM_NET, tcp("192.0.2.1:1000", "172.20.0.11:30082"), PROGRAM_TO_NET,
                       answer("172.20.0.11:8080", "192.0.2.1:1000"));
    seeds.conversation(PROGRAM_FROM_NET, udp("192.0.2.1:1000", "172.20.0.11:30053"), PROGRAM_FROM_NET,
                       udp("10.244.2.9:53", "172.20.0.11:49152"));
    seeds.conversation(PROGRAM_TO_POD, tcp("172.20.0.11:1000", "10.244.1.2:80"), PROGRAM_FROM_POD,
                       answer("10.244.1.2:80", "172.20.0.11:1000"));
    seeds.conversation(PROGRAM_FROM_POD, tcp("[fd00:10:244:1::2]:1000", "[fd96::1]:80"), PROGRAM_FROM_POD,
                       answer("[fd00:10:244:1::3]:8080", "[fd00:10:244:1::2]:1000"));
    seeds.conversation(PROGRAM_FROM_NET, tcp("[2001:db8::1]:1000", "[fd20::11]:30081"), PROGRAM_FROM_NET,
                       answer("[fd00:10:244:2::9]:8080", "[fd20::11]:49152"));
    for (const program back : {PROGRAM_XDP_NET, PROGRAM_FROM_NET}) {
        seeds.conversation(PROGRAM_XDP_NET, tcp("192.0.2.1:1000", "172.20.0.11:30081"), back,
                           answer("10.244.2.9:8080", "172.20.0.11:49152"));
        seeds.conversation(PROGRAM_XDP_NET, udp("192.0.2.1:1000", "172.20.0.11:30053"), back,
                           udp("10.244.2.9:53", "172.20.0.11:49152"));
        seeds.conversation(PROGRAM_XDP_NET, tcp("[2001:db8::1]:1000", "[fd20::11]:30081"), back,
                           answer("[fd00:10:244:2::9]:8080", "[fd20::11]:49152"));
        seeds.conversation(PROGRAM_XDP_NET, udp("[2001:db8::1]:1000", "[fd20::11]:30053"), back,
                           udp("[fd00:10:244:2::9]:53", "[fd20::11]:49152"));
    }
    seeds.conversation(PROGRAM_FROM_POD, udp("[fd00:10:244:1::2]:1000", "[fd96::10]:53"), PROGRAM_FROM_NET,
                       udp("[fd00:10:244:2::9]:53", "[fd00:10:244:1::2]:1000"));
    for (const auto &request : {ping("10.244.1.2", "10.244.2.9", 7), ping("fd00:10:244:1::2", "fd00:10:244:2::9", 7)})
        seeds.conversation(PROGRAM_FROM_POD, request, PROGRAM_FROM_NET, pong(request));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.5:80"));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.9:1000", "10.96.0.1:80"));
    for (const char *service : {"10.96.0.4:80", "10.96.0.5:80", "172.20.0.11:30083"}) // the host's own packets
        seeds.alone(PROGRAM_TO_NET, tcp("172.20.0.11:1000", service));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.1:80").with_hops(1));
    seeds.alone(PROGRAM_FROM_NET, tcp("10.244.1.2:1000", "172.20.0.11:30080"));
    seeds.alone(PROGRAM_FROM_NET, ping("192.0.2.1", "172.20.0.11", 7));
    for (const char *port : {"30080", "30082", "30083", "22"}) // local, the host's, nobody's, no frontend
        seeds.alone(PROGRAM_XDP_NET, tcp("192.0.2.1:1000", fmt::format("172.20.0.11:{}", port)));
    seeds.alone(PROGRAM_XDP_NET, tcp("172.20.0.11:1000", "172.20.0.11:30081"));
    seeds.alone(PROGRAM_XDP_NET, tcp("192.0.2.1:1000", "172.20.0.11:30081").with_hops(1));
    seeds.alone(PROGRAM_XDP_NET, tcp("192.0.2.1:1000", "172.20.0.11:30081").with_payload(1480));
    seeds.alone(PROGRAM_FROM_POD, ping("10.244.1.2", "10.96.0.1", 7));
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    Seeds seeds(argv[1]);
    write_all(seeds);
    return 0;
}
