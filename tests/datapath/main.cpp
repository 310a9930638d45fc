// SPDX-License-Identifier: Apache-2.0
#include "tests/datapath/world.h"

#include <catch2/catch_session.hpp>
#include <cstdio>
#include <cstdlib>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <sys/stat.h>

/// Runs the tests where they can touch nothing of the machine's: in network and mount namespaces of their own, which
/// end with the process.
int main(int argc, char **argv)
{
    spdlog::set_level(std::getenv("THRUWAY_TEST_LOG") ? spdlog::level::debug : spdlog::level::off);
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        std::perror("datapath tests need root, to make namespaces");
        return 1;
    }
    // The folder stays behind, empty; what is mounted on it ends with this process.
    mkdir(thruway::test::bpffs, 0700);
    if (mount("bpf", thruway::test::bpffs, "bpf", 0, nullptr) != 0) {
        std::perror("cannot mount a bpffs");
        return 1;
    }
    return Catch::Session().run(argc, argv);
}
