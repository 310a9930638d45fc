// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/commands.h"

#include <csignal>
#include <cstdio>

namespace thruway::lab {

void print_error(const std::string &text)
{
    fmt::print(stderr, "thruway-lab: {}\n", text);
}

int exit_code(const Result<> &result)
{
    if (result)
        return 0;
    print_error(result.error().text());
    return exit_failed;
}

} // namespace thruway::lab

int main(int argc, char **argv)
{
    using namespace thruway::lab;
    CLI::App app("Kubernetes nodes and pods as network namespaces on this machine, and clients and servers for them.",
                 "thruway-lab");
    app.set_version_flag("--version", THRUWAY_VERSION);
    app.require_subcommand(1);
    std::signal(SIGCHLD, SIG_DFL); // a parent that ignores it would have us do so, and lose how our children ended
    int code = 0;
    add_lab_commands(app, code);
    add_traffic_commands(app, code);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError &error) {
        if (error.get_exit_code() == 0)
            return app.exit(error); // --help, --version
        print_error(fmt::format("{} (--help tells more)", error.what()));
        return exit_usage;
    }
    return code;
}
