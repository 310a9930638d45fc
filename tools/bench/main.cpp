// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/control_plane.h"
#include "tools/bench/packet_path.h"
#include "tools/bench/report.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

namespace {

using namespace thruway;

int complain(int code, const std::string &text)
{
    fmt::print(stderr, "thruway-bench: {}\n", text);
    return code;
}

/// From here on nothing of the machine's network or mounts is touched.
Result<> in_own_namespaces(bench::Report &report)
{
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return fail_errno("cannot make namespaces");
    return bench::measure_packet_path(report);
}

/// Runs all measurements; what fails is told in the report and fails nothing else.
bench::Report measure(bool packets_only)
{
    bench::Report report;
    if (!packets_only)
        for (const bench::ClusterSize &size : {bench::ClusterSize{10, 10}, {10'000, 10}}) {
            fmt::print(stderr, "control plane at {} services...\n", size.services);
            if (auto measured = bench::measure_control_plane(size, report); !measured)
                report.skip(fmt::format("control plane at {} services", size.services), measured.error().text());
        }
    fmt::print(stderr, "packets...\n");
    if (auto measured = in_own_namespaces(report); !measured)
        report.skip("packets", measured.error().text());
    return report;
}

} // namespace

int main(int argc, char **argv)
{
    CLI::App app("Measures Thruway on this machine.", "thruway-bench");
    std::string output = "bench.json";
    app.set_version_flag("--version", "thruway-bench " THRUWAY_VERSION);
    app.add_option("--output", output, "Where to write the figures with their samples")->capture_default_str();
    bool packets_only = false;
    app.add_flag("--packets", packets_only, "Measure the packet path only");
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success &done) {
        return app.exit(done);
    } catch (const CLI::ParseError &error) {
        return complain(2, fmt::format("{} (see --help)", error.what()));
    }
    if (geteuid() != 0)
        return complain(1, "must be root: it runs agents in network namespaces");

    const bench::Report report = measure(packets_only);
    fmt::print("{}", report.table());
    std::ofstream file(output);
    file << report.json();
    file.close();
    if (!file)
        return complain(1, fmt::format("cannot write {}", output));
    return 0;
}
