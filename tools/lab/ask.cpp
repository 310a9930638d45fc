// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/ask.h"

#include "tools/lab/conversation.h"

#include <poll.h>

namespace thruway::lab {
namespace {

constexpr std::chrono::milliseconds poll_interval(10);

/// Does the next thing that a client with one message to send has to do.
void advance(Conversation &conversation)
{
    if (conversation.can_say() && conversation.tally().sent == 0)
        conversation.say();
    else if (conversation.tally().answered > 0)
        conversation.close();
}

void wait_for_news(const Conversation &conversation)
{
    const bool connecting = conversation.state() == Conversation::State::connecting;
    pollfd news{.fd = conversation.socket(), .events = POLLIN, .revents = 0};
    if (connecting)
        news.events |= POLLOUT;
    ::poll(&news, 1, poll_interval.count());
}

} // namespace

Result<Answer> ask(const AskOptions &options)
{
    const auto begin = Clock::now();
    auto conversation = Conversation::start(options.transport, options.target, options.source);
    if (!conversation)
        return std::unexpected(conversation.error());

    while (!conversation->over() && conversation->reason().empty()) {
        advance(*conversation);
        if (conversation->over())
            break;
        wait_for_news(*conversation);
        const auto now = Clock::now();
        conversation->ready();
        conversation->expire(now, options.timeout);
    }
    if (!conversation->reason().empty())
        return fail("{}", conversation->reason());
    return Answer{.name = conversation->server(),
                  .client = conversation->client(),
                  .took = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin)};
}

} // namespace thruway::lab
