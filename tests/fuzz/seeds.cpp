// SPDX-License-Identifier: Apache-2.0
// Writes the inputs that the fuzzer begins with: the conversations of the datapath tests, whole and cut short.
#include "tests/datapath/packet.h"
#include "tests/fuzz/input.h"

#include <fmt/format.h>
#include <fstream>

using namespace thruway::fuzz;
using namespace thruway::test;

namespace {

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

void write_all(Seeds &seeds)
{
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
    seeds.conversation(PROGRAM_FROM_POD, udp("[fd00:10:244:1::2]:1000", "[fd96::10]:53"), PROGRAM_FROM_NET,
                       udp("[fd00:10:244:2::9]:53", "[fd00:10:244:1::2]:1000"));
    for (const auto &request : {ping("10.244.1.2", "10.244.2.9", 7), ping("fd00:10:244:1::2", "fd00:10:244:2::9", 7)})
        seeds.conversation(PROGRAM_FROM_POD, request, PROGRAM_FROM_NET, pong(request));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.5:80"));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.9:1000", "10.96.0.1:80"));
    seeds.alone(PROGRAM_FROM_POD, tcp("10.244.1.2:1000", "10.96.0.1:80").with_hops(1));
    seeds.alone(PROGRAM_FROM_NET, tcp("10.244.1.2:1000", "172.20.0.11:30080"));
    seeds.alone(PROGRAM_FROM_NET, ping("192.0.2.1", "172.20.0.11", 7));
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
