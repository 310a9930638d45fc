// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"
#include "agent/api/api.h"
#include "agent/config.h"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

namespace {

using namespace thruway;

enum Exit : int { good = 0, failed = 1, wrong_usage = 2 };

int complain(Exit code, const std::string &text)
{
    fmt::print(stderr, "thruway-agent: {}\n", text);
    return code;
}

/// What the command line says, over what the file says.
struct Flags {
    Config given;
    std::string config_file;
    std::string sock;
    std::string xdp;

    void declare(CLI::App &app)
    {
        const Config standard;
        app.add_option("--node", given.node, "Name of this node, as its Node object has it");
        app.add_option("--source", given.source,
                       "Where Services come from: kube, an API server, or file:DIR, a folder of manifests");
        app.add_option("--kubeconfig", given.kube.kubeconfig,
                       "With --source kube: how to reach the API server [as a pod does, by its service account]");
        app.add_option(
               "--api-server", given.kube.servers,
               "With --source kube: URL of an API server, instead of what the kubeconfig or the pod's environment "
               "says; may be given several times")
            ->option_text("URL ...");
        app.add_option("--config", config_file, "YAML file with settings; every flag is a key there, a flag wins");
        app.add_option("--uplink", given.uplinks,
                       "Interface by which pods leave the node; may be given several times "
                       "[those of the default routes]")
            ->option_text("IF ...");
        app.add_option("--run-dir", given.run_dir,
                       fmt::format("Folder for socket and pod records [{}]", standard.run_dir));
        app.add_option("--bpffs", given.bpffs, fmt::format("Folder for pins, in a bpffs [{}]", standard.bpffs));
        app.add_option("--cgroup", given.cgroup, "cgroup2 folder whose processes dial services directly [the root]");
        app.add_option("--sock", sock,
                       "Socket translation: off, host (processes of the host), or all (pods, too) [host]");
        app.add_option("--xdp", xdp, "XDP on uplinks: auto (native if the driver can), native or off [auto]");
        app.add_option("--metrics-address", given.metrics_address,
                       fmt::format("Where /metrics is served [{}]", standard.metrics_address));
        app.add_option("--health-address", given.health_address,
                       fmt::format("Where /healthz and /livez are served [{}]", standard.health_address));
        app.add_option("--log-level", given.log_level, "debug, info, warn or error [info]");
    }

    Result<Config> resolve(const CLI::App &app) const
    {
        Config config;
        if (!config_file.empty())
            if (auto read = read_config(config_file, config); !read)
                return std::unexpected(read.error());
        const auto take = [&](const char *flag, auto &to, const auto &from) {
            if (app.count(flag) > 0)
                to = from;
        };
        take("--node", config.node, given.node);
        take("--source", config.source, given.source);
        take("--kubeconfig", config.kube.kubeconfig, given.kube.kubeconfig);
        take("--api-server", config.kube.servers, given.kube.servers);
        take("--uplink", config.uplinks, given.uplinks);
        take("--run-dir", config.run_dir, given.run_dir);
        take("--bpffs", config.bpffs, given.bpffs);
        take("--cgroup", config.cgroup, given.cgroup);
        take("--metrics-address", config.metrics_address, given.metrics_address);
        take("--health-address", config.health_address, given.health_address);
        take("--log-level", config.log_level, given.log_level);
        if (!sock.empty()) {
            auto mode = parse_sock_mode(sock);
            if (!mode)
                return fail_within("--sock", mode.error());
            config.sock = *mode;
        }
        if (!xdp.empty()) {
            auto mode = parse_xdp_mode(xdp);
            if (!mode)
                return fail_within("--xdp", mode.error());
            config.xdp = *mode;
        }
        return config;
    }
};

/// Each Service that load balancers ask about takes a socket; the usual limit is 1,024.
void raise_descriptor_limit()
{
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int run(const Config &config)
{
    raise_descriptor_limit();
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, nullptr); // before any thread is made, so that none of them gets one
    const Fd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));

    Loop loop;
    auto agent = Agent::start(loop, config);
    if (!agent)
        return complain(failed, agent.error().text());
    auto api = Api::start(loop, **agent);
    if (!api)
        return complain(failed, api.error().text());
    if (auto watched = loop.watch(signal_fd.get(), [&] { loop.stop(); }); !watched)
        return complain(failed, watched.error().text());
    loop.run();
    spdlog::info("ending; the datapath goes on");
    return good;
}

} // namespace

int main(int argc, char **argv)
{
    CLI::App app("Thruway's agent: keeps the eBPF datapath of this node true to the cluster's Services and pods.",
                 "thruway-agent");
    Flags flags;
    Flags cleanup_flags;
    bool check = false;
    app.set_version_flag("--version", "thruway-agent " THRUWAY_VERSION);
    flags.declare(app);
    app.add_flag("--check", check, "Only say what is wrong with flags and configuration file, if anything");
    CLI::App *cleaning = app.add_subcommand("cleanup", "Remove all that an agent has put into the kernel and on disk");
    cleanup_flags.declare(*cleaning);
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success &done) {
        return app.exit(done);
    } catch (const CLI::ParseError &error) {
        return complain(wrong_usage, fmt::format("{} (see --help)", error.what()));
    }

    spdlog::set_default_logger(spdlog::stderr_logger_st("thruway-agent"));
    const bool clean = cleaning->parsed();
    auto config = clean ? cleanup_flags.resolve(*cleaning) : flags.resolve(app);
    if (!config)
        return complain(wrong_usage, config.error().text());
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    spdlog::set_level(spdlog::level::from_str(config->log_level));
    if (clean) {
        auto cleaned = thruway::cleanup(*config);
        return cleaned ? good : complain(failed, cleaned.error().text());
    }
    if (auto checked = check_config(*config); !checked)
        return complain(wrong_usage, checked.error().text());
    for (const std::string &notice : config->notices)
        spdlog::info("{}", notice);
    return check ? good : run(*config);
}
