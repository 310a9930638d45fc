// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/hold.h"

#include <algorithm>
#include <array>
#include <sys/epoll.h>
#include <unordered_map>

namespace thruway::lab {
namespace {

constexpr std::chrono::milliseconds tick(2);
constexpr unsigned most_undecided = 256; ///< held connections that come about at a time: fits a listener's backlog

/// One conversation and its place in the plan.
struct Party {
    Conversation conversation;
    bool brief = false;
    Clock::time_point next_message;

    /// Whether it is an open question if the server answers at all.
    [[nodiscard]] bool undecided() const
    {
        return !conversation.was_open() && !conversation.over() && conversation.tally().lost == 0;
    }
};

class Holder {
public:
    Holder(const HoldOptions &options, const HoldHooks &hooks)
        : options_(options), hooks_(hooks), epoll_(::epoll_create1(EPOLL_CLOEXEC))
    {
        report_.connections = options.connections;
    }

    HoldReport run();

private:
    void open_held();
    void measure();
    void settle();
    void close_held();

    void begin(bool brief);
    void step();
    void take_events();
    void advance(Party &party, Clock::time_point now) const;
    void advance_brief(Conversation &conversation) const;
    void finish(const Party &party);
    [[nodiscard]] bool interrupted() const { return hooks_.interrupted && hooks_.interrupted(); }

    HoldOptions options_;
    HoldHooks hooks_;
    Fd epoll_;
    std::unordered_map<uint64_t, Party> parties_;
    uint64_t next_party_ = 0;
    bool talking_ = true; ///< held connections send messages
    Clock::time_point last_step_ = Clock::now();
    HoldReport report_;
};

HoldReport Holder::run()
{
    open_held();
    measure();
    settle();
    close_held();
    return report_;
}

void Holder::open_held()
{
    const auto undecided = [this] {
        return std::ranges::count_if(parties_, [](const auto &entry) { return entry.second.undecided(); });
    };
    for (unsigned begun = 0; begun < options_.connections || undecided() > 0; step()) {
        while (begun < options_.connections && undecided() < most_undecided) {
            begin(false);
            begun++;
        }
    }
    if (hooks_.held_decided)
        hooks_.held_decided(parties_.size());
}

void Holder::measure()
{
    const auto begun = Clock::now();
    for (uint64_t briefs = 0; report_.measured < options_.length && !interrupted(); step()) {
        report_.measured = Clock::now() - begun;
        for (; static_cast<double>(briefs) < report_.measured.count() * options_.rate; briefs++)
            begin(true);
    }
}

/// Sends nothing new, and waits until all that was sent is answered or given up.
void Holder::settle()
{
    talking_ = false;
    const auto busy = [](const auto &entry) { return entry.second.brief || !entry.second.conversation.all_answered(); };
    while (std::ranges::any_of(parties_, busy))
        step();
}

void Holder::close_held()
{
    for (auto &[id, party] : parties_)
        party.conversation.close();
    while (!parties_.empty())
        step();
}

void Holder::begin(bool brief)
{
    auto conversation = Conversation::start(options_.transport, options_.target);
    if (!conversation) {
        report_.own_faults[conversation.error().text()]++;
        return;
    }
    const uint64_t id = next_party_++;
    if (const int socket = conversation->socket(); socket >= 0) {
        epoll_event event{};
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
        event.data.u64 = id;
        ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket, &event);
    }
    // Held connections take turns within the interval.
    constexpr uint64_t turns = 64;
    const auto first = Clock::now() + options_.interval * (id % turns) / turns;
    parties_.emplace(id, Party{.conversation = std::move(*conversation), .brief = brief, .next_message = first});
}

void Holder::step()
{
    const auto now = Clock::now();
    report_.longest_pause = std::max(report_.longest_pause, now - last_step_ - tick);
    last_step_ = now;
    take_events();
    for (auto entry = parties_.begin(); entry != parties_.end();) {
        advance(entry->second, now);
        if (entry->second.conversation.over()) {
            finish(entry->second);
            entry = parties_.erase(entry);
        } else {
            ++entry;
        }
    }
}

/// Takes all that has come by now, however much: only then may anything be given up.
void Holder::take_events()
{
    std::array<epoll_event, 256> events{};
    size_t count = 0;
    auto wait = tick;
    do {
        const int got = ::epoll_wait(epoll_.get(), events.data(), events.size(), static_cast<int>(wait.count()));
        count = got < 0 ? 0 : static_cast<size_t>(got);
        for (size_t i = 0; i < count; i++) {
            const uint64_t id = events.at(i).data.u64; // a copy: the structure is packed
            if (const auto party = parties_.find(id); party != parties_.end())
                party->second.conversation.ready();
        }
        wait = {};
    } while (count == events.size());
}

void Holder::advance(Party &party, Clock::time_point now) const
{
    party.conversation.expire(now, options_.timeout);
    if (party.brief) {
        advance_brief(party.conversation);
    } else if (talking_ && party.conversation.can_say() && now >= party.next_message) {
        party.conversation.say();
        party.next_message = std::max(party.next_message + options_.interval, now);
    }
}

/// One message there and back.
void Holder::advance_brief(Conversation &conversation) const
{
    if (conversation.can_say() && conversation.tally().sent == 0)
        conversation.say();
    else if (conversation.tally().answered > 0 || conversation.tally().lost > 0)
        conversation.close();
}

void Holder::finish(const Party &party)
{
    const Conversation &conversation = party.conversation;
    const bool failed = conversation.state() == Conversation::State::failed;
    (party.brief ? report_.brief : report_.held).add(conversation.tally());

    if (party.brief)
        (failed || conversation.tally().lost > 0 ? report_.short_failed : report_.short_ok)++;
    if (!conversation.was_open())
        return;
    Served &served = report_.backends[conversation.server()];
    if (party.brief) {
        served.brief++;
    } else {
        const uint64_t lost = options_.transport == Transport::tcp ? failed : conversation.tally().lost;
        report_.established++;
        report_.lost += lost;
        served.held++;
        served.lost += lost;
    }
}

} // namespace

uint64_t HoldReport::problems(const std::string &reason) const
{
    uint64_t count = 0;
    for (const Tally *tally : {&held, &brief}) {
        if (const auto found = tally->problems.find(reason); found != tally->problems.end())
            count += found->second;
    }
    return count;
}

bool HoldReport::good() const
{
    return own_faults.empty() && established == connections && lost == 0 && short_failed == 0 &&
           held.problems.empty() && brief.problems.empty();
}

HoldReport hold(const HoldOptions &options, const HoldHooks &hooks)
{
    raise_descriptor_limit();
    return Holder(options, hooks).run();
}

} // namespace thruway::lab
