// SPDX-License-Identifier: Apache-2.0
// Planner, applier and programs against the reference model of Services: random clusters, random changes, random
// packets. Numbers of rules are those of docs/kube-proxy.md.
//
//   THRUWAY_MODEL_CASES  how many packets (200,000)
//   THRUWAY_MODEL_SEED   of the first history; each further one has the next number
#include "tests/model/manifest.h"
#include "tests/model/service_subject.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <random>

using namespace thruway::reference;

namespace {

constexpr size_t rounds = 100;
constexpr size_t packets = 100;
constexpr std::chrono::seconds shrink_time(60);

uint64_t from_environment(const char *name, uint64_t standard)
{
    const char *text = std::getenv(name);
    return text ? std::stoull(text) : standard;
}

/// A node, and what should hold of it.
class Trial {
public:
    Trial()
    {
        Round first{{subject_.node()}, {}};
        play(first);
    }

    /// Makes the changes and sends each packet so often. Returns what is wrong, and leaves of the round what came up to
    /// then.
    std::string play(Round &round, size_t times = 1)
    {
        Cluster cluster = model_.cluster();
        for (const Change &change : round.changes)
            make(change, cluster);
        model_.change(cluster);
        subject_.change(round.changes);
        for (size_t i = 0; i < round.packets.size() * times; i++) {
            const Packet &packet = round.packets[i / times];
            if (!can_be_sent(packet))
                continue;
            const Answer answer = model_.answer(packet);
            std::optional<Backend> to;
            if (const std::string wrong = subject_.compare(model_.cluster(), packet, answer, to); !wrong.empty()) {
                std::string line =
                    fmt::format("{}\n  should be: {}\n  is:        {}", text(packet), text(answer), wrong);
                round.packets.resize(i / times + 1);
                return line;
            }
            if (answer.kind == Answer::Kind::forwarded)
                model_.note(packet, to);
        }
        return {};
    }

    [[nodiscard]] const Subject &subject() const { return subject_; }

private:
    /// False in smaller histories if it was the address that the node does not get any more.
    [[nodiscard]] bool can_be_sent(const Packet &packet) const
    {
        const auto &own = model_.cluster().node.addresses;
        return packet.from != From::host || std::ranges::find(own, packet.source) != own.end();
    }

    Subject subject_;
    Model model_;
};

/// Plays the history anew, packets several times since backends are chosen at random. Returns what is wrong with the
/// last packet; what is wrong with others is another fault.
std::string replay(const History &history)
{
    Trial trial;
    for (size_t i = 0; i < history.size(); i++) {
        const bool last = i + 1 == history.size();
        Round round = history[i];
        const size_t count = round.packets.size();
        if (const std::string wrong = trial.play(round, last ? 24 : 2); !wrong.empty())
            return last && round.packets.size() == count ? wrong : std::string();
    }
    return {};
}

/// What is wrong, with the smallest history that shows it.
std::string explain(const History &failed, const std::string &wrong)
{
    const auto end = std::chrono::steady_clock::now() + shrink_time;
    const History small = shrink(failed, [&](const History &history) {
        return std::chrono::steady_clock::now() < end && !replay(history).empty();
    });
    const std::string again = replay(small);
    return "---\n" + manifest(Trial().subject().node()) + text(small) + (again.empty() ? wrong : again);
}

} // namespace

TEST_CASE("the datapath agrees with the model of Services about every packet")
{
    const uint64_t cases = from_environment("THRUWAY_MODEL_CASES", 200'000);
    uint64_t seed = from_environment("THRUWAY_MODEL_SEED", std::random_device()());
    uint64_t done = 0;
    unsigned refused = 0;
    unsigned told = 0;
    fmt::print("seed {}\n", seed);
    for (; done < cases; seed++) {
        Trial trial;
        Cases random(seed, trial.subject().node());
        History history;
        std::string wrong;
        for (size_t i = 0; i < rounds && wrong.empty() && done < cases; i++) {
            history.push_back(random.next(packets));
            wrong = trial.play(history.back());
            done += history.back().packets.size();
        }
        if (!wrong.empty()) {
            fmt::print("seed {}, after {} packets: {}\n", seed, done, wrong);
            FAIL(explain(history, wrong));
        }
        refused += trial.subject().refused();
        told += trial.subject().told();
    }
    fmt::print("{} packets, {} of them refused\n", done, refused);
    CHECK(told > 0);
}
