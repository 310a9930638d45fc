// SPDX-License-Identifier: Apache-2.0
// Planner, applier and programs against the reference model of Services: random clusters, random changes, random
// packets. Numbers of rules are those of docs/kube-proxy.md.
//
//   THRUWAY_MODEL_CASES  how many packets (200,000)
//   THRUWAY_MODEL_SEED   of the first history (1); each further one has the next number. A change is tested by what it
//                        changes and not by luck, so only `make soak` begins with another one each time
#include "tests/model/manifest.h"
#include "tests/model/service_subject.h"

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <optional>
#include <utility>
#include <vector>

using namespace thruway::reference;

namespace {

constexpr size_t rounds = 100;
constexpr size_t packets = 100;
constexpr size_t packets_between = 500; ///< until flows are forgotten, far from filling the table
constexpr size_t kept_max = 30;
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
        for (const Change &change : round.changes) {
            make(change, cluster);
            if (const auto *elapsed = std::get_if<Elapsed>(&change))
                model_.elapse(elapsed->seconds);
        }
        model_.change(cluster);
        subject_.change(round.changes);
        std::string wrong = go_on();
        if (!wrong.empty())
            round.packets.clear();
        for (size_t i = 0; i < round.packets.size() * times && wrong.empty(); i++) {
            wrong = play(round.packets[i / times]);
            if (!wrong.empty())
                round.packets.resize(i / times + 1);
        }
        return wrong;
    }

    [[nodiscard]] const Subject &subject() const { return subject_; }

    /// How many packets there were of each kind of answer.
    using Counts = std::array<uint64_t, 5>;
    [[nodiscard]] const Counts &counts() const { return counts_; }

    /// How many clients whose affinity had ended got the same backend again, and how many should by chance.
    struct Again {
        double wanted = 0;
        double got = 0;
    };
    [[nodiscard]] const Again &again() const { return again_; }

private:
    struct Kept {
        Flow flow;
        Conversation conversation;
    };

    std::string play(const Packet &packet)
    {
        if (!can_be_sent(packet))
            return {};
        if (++sent_ % packets_between == 0) {
            subject_.forget_flows();
            kept_.clear();
        }
        const Answer answer = model_.answer(packet);
        counts_.at(static_cast<size_t>(answer.kind))++;
        std::optional<Flow> flow;
        return judged(packet, answer, subject_.compare(model_.cluster(), packet, answer, flow), flow);
    }

    std::string judged(const Packet &packet, const Answer &answer, const std::string &wrong,
                       const std::optional<Flow> &flow)
    {
        if (!wrong.empty())
            return line(packet, text(answer), wrong);
        if (flow && answer.forgotten) {
            again_.wanted += 1 / static_cast<double>(answer.backends.size());
            again_.got += flow->backend == *answer.forgotten ? 1 : 0;
        }
        if (answer.kind == Answer::Kind::forwarded)
            model_.note(packet, flow ? std::optional(flow->backend) : std::nullopt);
        return flow && kept_.size() < kept_max ? keep(*flow) : std::string();
    }

    /// Lets backend and client exchange packets, and remembers the flow for after the next changes.
    std::string keep(const Flow &flow)
    {
        const bool past_us = flow.packet.from == From::outside && flow.request.source == flow.arrived.source &&
                             !on_node(flow.backend.address);
        if (past_us) // a backend elsewhere answers a client that it knows by itself
            return {};
        kept_.push_back({flow, model_.begin(flow.packet, flow.backend)});
        for (const std::string &wrong : {subject_.answer(flow), subject_.go_on(flow)})
            if (!wrong.empty())
                return line(flow.packet, "carried both ways", wrong);
        return {};
    }

    /// What has begun before the changes goes on, or begins anew.
    std::string go_on()
    {
        for (const Kept &kept : std::exchange(kept_, {})) {
            const Packet &packet = kept.flow.packet;
            if (!can_be_sent(packet))
                continue;
            if (model_.outlives(kept.conversation)) {
                kept_.push_back(kept);
                if (const std::string wrong = subject_.go_on(kept.flow); !wrong.empty())
                    return line(packet, "as before the changes", wrong);
                continue;
            }
            const Answer answer = model_.answer(packet);
            std::optional<Flow> flow;
            const std::string wrong = subject_.compare_again(model_.cluster(), kept.flow, answer, flow);
            if (const std::string complaint = judged(packet, answer, wrong, flow); !complaint.empty())
                return "after it had lost its backend: " + complaint;
        }
        return {};
    }

    static std::string line(const Packet &packet, const std::string &wanted, const std::string &wrong)
    {
        return fmt::format("{}\n  should be: {}\n  is:        {}", text(packet), wanted, wrong);
    }

    [[nodiscard]] bool on_node(const std::string &address) const
    {
        const Node &node = model_.cluster().node;
        return node.pods.contains(address) || std::ranges::find(node.addresses, address) != node.addresses.end();
    }

    /// The host has addresses only as long as the node has them.
    [[nodiscard]] bool can_be_sent(const Packet &packet) const
    {
        return packet.from != From::host || on_node(packet.source);
    }

    Subject subject_;
    Model model_;
    std::vector<Kept> kept_;
    size_t sent_ = 0;
    Counts counts_{};
    Again again_;
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
    std::string again;
    for (int i = 0; i < 10 && again.empty(); i++) // backends are chosen at random
        again = replay(small);
    return "---\n" + manifest(Trial().subject().node()) + text(small) + (again.empty() ? wrong : again);
}

} // namespace

TEST_CASE("the datapath agrees with the model of Services about every packet")
{
    const uint64_t cases = from_environment("THRUWAY_MODEL_CASES", 200'000);
    uint64_t seed = from_environment("THRUWAY_MODEL_SEED", 1);
    uint64_t done = 0;
    unsigned told = 0;
    Trial::Counts counts{};
    Trial::Again again;
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
        told += trial.subject().told();
        for (size_t i = 0; i < counts.size(); i++)
            counts.at(i) += trial.counts().at(i);
        again.wanted += trial.again().wanted;
        again.got += trial.again().got;
    }
    const auto &[stranger, forwarded, refused, dropped, answered] = counts;
    fmt::print("{} packets: {} forwarded, {} refused, {} dropped, {} answered, {} of no Service\n", done, forwarded,
               refused, dropped, answered, stranger);
    CHECK(told > 0);
    CHECK(forwarded > refused + dropped);
    // Chernoff: one of 10^13 runs is further off by chance.
    CHECK(again.got < again.wanted + 8 * std::sqrt(again.wanted) + 30);
}
