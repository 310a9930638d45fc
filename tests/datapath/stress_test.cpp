// SPDX-License-Identifier: Apache-2.0
// The flow table of the loaded programs on real CPUs: what tests/model shows of flow.h in userspace, with the code that
// the kernel's JIT has made of it, helpers and all.
#include "tests/datapath/world.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_get_random_seed.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fmt/format.h>
#include <mutex>
#include <random>
#include <thread>
#include <tuple>

using namespace thruway;
using namespace thruway::test;
using Clock = std::chrono::steady_clock;

namespace {

constexpr uint32_t table_rows = 64;
constexpr uint16_t connections = 48; ///< more than there is room for
constexpr uint16_t hot = 4;          ///< of these, every second packet, so that CPUs meet
constexpr uint16_t live = 4;         ///< established, which nothing may end

/// What the stress in userspace takes for both families; here it is half of that.
std::chrono::milliseconds duration()
{
    const char *seconds = std::getenv("THRUWAY_STRESS_SECONDS");
    return std::chrono::milliseconds(seconds ? 1000 * std::stoi(seconds) : 2000);
}

/// A table of this size, and no change from one to it or back: what other tests have pinned goes, and so does ours.
struct PinsApart {
    PinsApart() { std::ignore = Datapath::cleanup(pins); }
    ~PinsApart() { std::ignore = Datapath::cleanup(pins); }
    PinsApart(const PinsApart &) = delete;
    PinsApart &operator=(const PinsApart &) = delete;
};

/// One connection from a pod to a service on the same node, and what each of its packets must become: nothing else
/// leaves the programs but by a row that is not wholly this flow's.
struct Connection {
    Packet request;
    Packet request_there;
    Packet answer;
    Packet answer_there;
};

class Stress {
public:
    explicit Stress(const Scene &scene)
        : world_([](DatapathOptions &options) { options.sizes.flows = table_rows; }), client_(world_.pod(2)),
          server_(world_.pod(3)), from_pod_(World::program("from_pod"))
    {
        for (unsigned service = 0; service < 2; service++)
            world_.service(fmt::format("web{}", service), {fmt::format("{}:{}", scene.vip, 80 + service)},
                           {fmt::format("{}:{}", scene.local_backend, 8080 + service)});
        for (uint16_t i = 0; i < connections + live; i++)
            connections_.push_back(connection(scene, i));
        for (uint16_t i = connections; i < connections + live; i++) {
            send(i, false, syn);
            send(i, true, syn | ack);
            send(i, false, ack);
        }
    }

    /// Everybody for a while; then the table lies still and is looked at.
    void round(unsigned seed, std::chrono::milliseconds time)
    {
        std::atomic<bool> stop = false;
        {
            std::vector<std::jthread> threads;
            for (unsigned writer = 0; writer < 2; writer++)
                threads.emplace_back([&, writer] { write(seed + writer, stop); });
            for (const bool reply : {false, true})
                threads.emplace_back([&, reply] {
                    while (!stop)
                        for (uint16_t number = connections; number < connections + live; number++)
                            read(number, reply);
                });
            for (const auto end = Clock::now() + time; Clock::now() < end;) {
                world_.walk_flows();
                judge_anew();
            }
            stop = true;
        }
        check_at_rest(world_.rows4());
        check_at_rest(world_.rows6());
    }

    /// Both directions of one live connection, which is judged again with every packet.
    void meet(std::chrono::milliseconds time)
    {
        const auto end = Clock::now() + time;
        std::vector<std::jthread> threads;
        for (const bool reply : {false, true})
            threads.emplace_back([&, reply] {
                while (Clock::now() < end) {
                    judge_anew();
                    read(connections, reply);
                }
            });
    }

    [[nodiscard]] uint64_t packets() const { return packets_; }
    /// Packets of live connections that were dropped.
    [[nodiscard]] uint64_t busy() const { return busy_; }
    [[nodiscard]] std::string wrong() const
    {
        const std::scoped_lock lock(mutex_);
        return wrong_;
    }

private:
    Connection connection(const Scene &scene, uint16_t number) const
    {
        const unsigned service = number % 2;
        const std::string vip = fmt::format("{}:{}", scene.vip, 80 + service);
        const std::string backend = fmt::format("{}:{}", scene.local_backend, 8080 + service);
        const std::string client = fmt::format("{}:{}", scene.client, 1000 + number);
        Connection it{
            .request = tcp(client, vip), .request_there = {}, .answer = tcp(backend, client), .answer_there = {}};
        it.request_there = World::in_pod(tcp(client, backend), server_);
        it.answer_there = World::in_pod(tcp(vip, client), client_);
        return it;
    }

    /// A packet of the connection, from either end. Returns the verdict.
    int send(uint16_t number, bool reply, uint8_t flags)
    {
        const Connection &it = connections_.at(number);
        const Packet packet = (reply ? it.answer : it.request).with_flags(flags);
        const Outcome outcome = World::run(from_pod_, reply ? server_.ifindex : client_.ifindex, packet.build());
        packets_++;
        if (outcome.verdict == verdict_redirect && !expected(number, reply, flags, outcome.frame))
            complain(fmt::format("torn: a packet of connection {} did not become what its row says", number));
        return outcome.verdict;
    }

    [[nodiscard]] bool expected(uint16_t number, bool reply, uint8_t flags, const Frame &got) const
    {
        const Connection &it = connections_.at(number);
        const Packet there = (reply ? it.answer_there : it.request_there).with_flags(flags);
        if (got == frame(there) || number >= connections)
            return got == frame(there);
        if (!reply && !(flags & (syn | rst)) && got == frame(reset_for(it.request.with_flags(flags), 0)))
            return true; // it goes on with what nobody has
        // An answer to nothing opens a flow of its own; while that stands, a request needs another source port.
        const Packet untranslated = World::in_pod(it.answer.with_flags(flags), client_);
        return got == frame(reply ? untranslated : there.with_source(there.source, source_port_of(got.bytes)));
    }

    /// Steps in the lives of connections.
    void write(unsigned seed, const std::atomic<bool> &stop)
    {
        std::minstd_rand random(seed);
        while (!stop) {
            const auto number = static_cast<uint16_t>(random() % (random() % 2 == 0 ? hot : connections));
            switch (random() % 8) {
            case 0:
                send(number, false, rst);
                break;
            case 1:
                send(number, true, fin | ack);
                break;
            case 2:
                send(number, false, fin | ack);
                break;
            case 3:
                send(number, true, syn | ack);
                break;
            case 4:
                send(number, false, ack);
                break;
            default:
                send(number, false, syn);
            }
        }
    }

    /// A packet of a live connection. It arrives, unless its row was being changed time after time, and it is to be
    /// sent again; never is it taken for a stranger's.
    void read(uint16_t number, bool reply)
    {
        if (const int verdict = send(number, reply, ack | psh); verdict == verdict_drop)
            busy_++;
        else if (verdict != verdict_redirect)
            complain(fmt::format("lost: a packet of live connection {} was left to the host", number));
    }

    /// All flows are to be judged again by their next packet, and pointed to where they go anyway.
    void judge_anew()
    {
        for (uint32_t index = 1; index < 3; index++)
            std::atomic_ref(world_.arrays.generations[index])++;
    }

    template<typename Row>
    void check_at_rest(const std::vector<Row> &rows)
    {
        for (const Row &row : rows) {
            const auto pairs = std::ranges::count_if(rows, [&](const Row &other) { return halves(row, other); });
            const auto same = std::ranges::count_if(rows, [&](const Row &other) { return same_key(row, other); });
            if ((row.head.word & TW_FLOW_STATE) == TW_FLOW_CLAIMED || row.head.word & TW_FLOW_LOCK)
                complain("a row stays claimed or locked");
            if (pairs != 1)
                complain(fmt::format("orphan: a row has {} other halves", pairs));
            if (same != 1)
                complain("two rows have one key");
        }
    }

    template<typename Row>
    static bool same_key(const Row &a, const Row &b)
    {
        return std::memcmp(&a.source, &b.source, 2 * sizeof(a.source)) == 0 &&
               a.head.source_port == b.head.source_port && a.head.destination_port == b.head.destination_port;
    }

    /// One is what answers to what the other one says.
    template<typename Row>
    static bool halves(const Row &a, const Row &b)
    {
        return std::memcmp(&a.new_source, &b.destination, sizeof(a.source)) == 0 &&
               std::memcmp(&a.new_destination, &b.source, sizeof(a.source)) == 0 &&
               a.head.new_source_port == b.head.destination_port && a.head.new_destination_port == b.head.source_port &&
               ((a.head.flags ^ b.head.flags) & TW_FLOW_REPLY) != 0;
    }

    void complain(const std::string &what)
    {
        const std::scoped_lock lock(mutex_);
        if (wrong_.empty())
            wrong_ = what;
    }

    PinsApart pins_;
    World world_;
    const PodSpec &client_;
    const PodSpec &server_;
    Fd from_pod_;
    std::vector<Connection> connections_;
    std::atomic<uint64_t> packets_ = 0;
    std::atomic<uint64_t> busy_ = 0;
    mutable std::mutex mutex_;
    std::string wrong_;
};

} // namespace

TEST_CASE("packets on several CPUs and gc leave every flow of the loaded programs whole", "[cpus]")
{
    const Scene &scene = scenes.at(GENERATE(0U, 1U));
    Stress stress(scene);
    const auto end = Clock::now() + duration() / 4;
    auto seed = Catch::getSeed();
    INFO("seed " << seed);
    while (Clock::now() < end && stress.wrong().empty())
        stress.round(seed += 2, std::chrono::milliseconds(50));
    fmt::print("  {}: {} packets, {} to be sent again\n", scene.client, stress.packets(), stress.busy());
    INFO(stress.wrong());
    CHECK(stress.wrong().empty());
    CHECK(stress.packets() > 1000);
    CHECK(stress.busy() <= stress.packets() / 1000);
}

TEST_CASE("no packet of a live connection is left to the host while its flow is pointed elsewhere from both sides",
          "[cpus]")
{
    Stress stress(scenes.at(GENERATE(0U, 1U)));
    stress.meet(std::chrono::seconds(1));
    INFO(stress.wrong());
    CHECK(stress.wrong().empty());
    CHECK(stress.packets() > 1000);
}
