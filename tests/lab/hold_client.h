// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/lab/fixture.h"

#include <array>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

namespace thruway::lab {

/// A `thruway-lab hold` in the background, waited for until it holds its connections.
class Hold {
public:
    Hold(const Lab &lab, const std::string &place, std::vector<std::string> arguments)
        : out_(::memfd_create("out", MFD_CLOEXEC)), process_(start(lab, place, std::move(arguments)))
    {
        pollfd line{.fd = holding_.get(), .events = POLLIN, .revents = 0};
        REQUIRE(::poll(&line, 1, 20'000) == 1);
    }

    [[nodiscard]] const Process &process() const { return process_; }

    /// Ends it if it goes on, and gives its report.
    nlohmann::json finish(int code)
    {
        process_.signal(SIGTERM);
        const Exit exit = must(process_.wait(std::chrono::milliseconds(30'000)));
        std::string text(static_cast<size_t>(::lseek(out_.get(), 0, SEEK_END)), '\0');
        CHECK(::pread(out_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
        INFO(text);
        CHECK(exit.shell_code() == code);
        return nlohmann::json::parse(text);
    }

private:
    Process start(const Lab &lab, const std::string &place, std::vector<std::string> arguments)
    {
        std::array<int, 2> ends{};
        REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
        holding_ = Fd(ends[0]);
        const Fd err(ends[1]);
        arguments.insert(arguments.begin(), {program(), "hold"});
        arguments.insert(arguments.end(), {"--seconds", "60", "-o", "json"});
        const Command command{.argv = std::move(arguments), .out = out_.get(), .err = err.get()};
        return must(Process::start(lab.keeper(), must(lab.place(place)), command));
    }

    Fd out_;
    Fd holding_;
    Process process_;
};

} // namespace thruway::lab
