// SPDX-License-Identifier: Apache-2.0
#include "tools/cni/attach.h"
#include "tools/cni/config.h"
#include "tools/cni/install.h"

#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

namespace {

using namespace thruway;

constexpr const char *usage =
    "thruway-cni: CNI plugin of Thruway. A container runtime runs it: CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, "
    "CNI_IFNAME\n"
    "and CNI_ARGS in the environment, the network configuration on standard input.\n"
    "\n"
    "  CNI_COMMAND   ADD, DEL or VERSION\n"
    "  configuration {\"cniVersion\": \"1.0.0\", \"name\": \"thruway\", \"type\": \"thruway-cni\",\n"
    "                 \"socket\": \"/run/thruway/agent.sock\", \"mtu\": 1500}   (the last two are optional)\n"
    "\n"
    "Options:\n"
    "  -h, --help   Print this and exit\n"
    "  --version    Print the version and exit\n"
    "  --install PLUGINS CONFIGURATIONS\n"
    "               Put the plugin, and a configuration that names it, into the folders of a container runtime\n"
    "               (/opt/cni/bin /etc/cni/net.d)\n";

/// The specification wants errors on standard output, as JSON, and a status that is not zero.
int tell(const std::string &version, const Error &error)
{
    const nlohmann::json body{{"cniVersion", version}, {"code", error.code()}, {"msg", error.text()}};
    fmt::print("{}\n", body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    return 1;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc > 1) {
        const std::string_view argument = argv[1];
        if (argument == "--help" || argument == "-h") {
            fmt::print("{}", usage);
            return 0;
        }
        if (argument == "--version") {
            fmt::print("thruway-cni {}\n", THRUWAY_VERSION);
            return 0;
        }
        if (argument == "--install" && argc == 4) {
            const auto installed = cni::install(argv[2], argv[3]);
            if (!installed)
                fmt::print(stderr, "thruway-cni: {}\n", installed.error().text());
            return installed ? 0 : 1;
        }
        fmt::print(stderr, "thruway-cni: {} is no option (see --help)\n", argument);
        return 2;
    }
    if (!std::getenv("CNI_COMMAND")) {
        fmt::print(stderr, "thruway-cni: CNI_COMMAND is not set: this is run by a container runtime (see --help)\n");
        return 2;
    }
    const std::string config{std::istreambuf_iterator<char>(std::cin), {}};
    const std::string standard = "1.0.0";
    auto call = cni::read_call(config);
    if (!call)
        return tell(standard, call.error());
    if (call->command == "VERSION") {
        fmt::print("{}\n", cni::version_answer(call->version));
        return 0;
    }
    if (call->command == "DEL") {
        if (auto done = cni::del(*call); !done)
            return tell(call->version, done.error());
        return 0;
    }
    auto result = cni::add(*call);
    if (!result)
        return tell(call->version, result.error());
    fmt::print("{}\n", *result);
    return 0;
}
