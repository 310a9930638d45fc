// SPDX-License-Identifier: Apache-2.0
#include "agent/base/loop.h"

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <thread>
#include <unistd.h>

using namespace thruway;
using namespace std::chrono_literals;

TEST_CASE("timers run in the order in which they are due, and not when cancelled")
{
    Loop loop;
    std::string order;
    loop.after(2ms, [&] { order += 'b'; });
    loop.after(1ms, [&] { order += 'a'; });
    const auto cancelled = loop.after(1ms, [&] { order += 'x'; });
    loop.after(3ms, [&] { loop.stop(); });
    loop.cancel(cancelled);
    loop.cancel(cancelled);
    loop.run();
    CHECK(order == "ab");
}

TEST_CASE("a timer may set and cancel others")
{
    Loop loop;
    int runs = 0;
    Loop::Timer other = 0;
    loop.after(0ms, [&] {
        loop.cancel(other);
        loop.after(0ms, [&] {
            runs++;
            loop.stop();
        });
    });
    other = loop.after(0ms, [&] { runs += 10; });
    loop.run();
    CHECK(runs == 1);
}

TEST_CASE("a descriptor is watched until it is forgotten, which its own task may do")
{
    std::array<int, 2> ends{};
    REQUIRE(pipe(ends.data()) == 0);
    const Fd reader(ends[0]);
    const Fd writer(ends[1]);
    Loop loop;
    int calls = 0;
    REQUIRE(loop.watch(reader.get(), [&] {
        calls++;
        loop.forget(reader.get()); // the byte stays unread: it would call again for ever
        loop.after(5ms, [&] { loop.stop(); });
    }));
    REQUIRE(write(writer.get(), "x", 1) == 1);
    loop.run();
    CHECK(calls == 1);
}

TEST_CASE("work from other threads runs in the loop, in order and none lost")
{
    Loop loop;
    std::array<int, 2> last{-1, -1};
    int done = 0;
    const auto thread_of_loop = std::this_thread::get_id();
    bool elsewhere = false;
    const auto work = [&](size_t who) {
        for (int i = 0; i < 10'000; i++) {
            loop.post([&, who, i] {
                elsewhere |= std::this_thread::get_id() != thread_of_loop || last.at(who) != i - 1;
                last.at(who) = i;
                if (++done == 20'000)
                    loop.stop();
            });
        }
    };
    std::thread a(work, 0);
    std::thread b(work, 1);
    loop.run();
    a.join();
    b.join();
    CHECK_FALSE(elsewhere);
    CHECK(done == 20'000);
}
