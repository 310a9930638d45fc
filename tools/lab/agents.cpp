// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/agents.h"

#include "tools/lab/namespaces.h"
#include "tools/lab/socket.h"

#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <thread>

namespace thruway::lab {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint16_t health_port = 10256;
constexpr std::chrono::milliseconds health_timeout(500);
constexpr std::chrono::milliseconds poll_interval(5);
constexpr std::chrono::seconds stop_timeout(15);

/// The status line of GET /healthz; empty if there is none in time.
std::string health_status(const SocketName &target)
{
    auto socket = connect_within(target, health_timeout);
    if (!socket)
        return {};
    const std::string_view request = "GET /healthz HTTP/1.0\r\n\r\n";
    ::send(socket->get(), request.data(), request.size(), MSG_NOSIGNAL);
    pollfd answer{.fd = socket->get(), .events = POLLIN, .revents = 0};
    if (::poll(&answer, 1, health_timeout.count()) != 1)
        return {};
    std::string text(256, '\0');
    const auto got = ::recv(socket->get(), text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return text.substr(0, text.find('\r'));
}

Result<> end_agent(const Lab &lab, const std::string &node, int signal)
{
    auto presence = find_agent(lab, node);
    if (!presence)
        return std::unexpected(presence.error());
    if (!*presence)
        return fail("no agent runs on {}", node);
    return end_process(*presence, signal, stop_timeout);
}

std::vector<std::string> agent_command(const Lab &lab, const std::string &node, const std::vector<std::string> &more)
{
    std::vector<std::string> argv{
        lab.options().bin_dir / "thruway-agent",
        "--node",
        node,
        "--source",
        lab.options().source.empty() ? "file:" + lab.folder().manifests().native() : lab.options().source,
        "--uplink",
        "eth0",
        "--run-dir",
        lab.folder().run_dir(node),
        "--bpffs",
        lab.folder().bpffs(node),
        "--cgroup",
        lab.node_cgroup(node),
    };
    argv.insert(argv.end(), lab.options().agent_args.begin(), lab.options().agent_args.end());
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
}

} // namespace

Result<> start_agent(const Lab &lab, const std::string &node, const std::vector<std::string> &more)
{
    if (lab.options().dataplane == Dataplane::none)
        return fail("lab \"{}\" was made with --dataplane none: it has no agents", lab.options().name);
    auto running = find_agent(lab, node);
    if (!running)
        return std::unexpected(running.error());
    if (*running)
        return fail("the agent on {} runs already", node);

    const auto log_path = lab.folder().agent_log(node);
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!log || !null)
        return fail_errno("cannot open {}", log_path.native());
    const Place place{.netns = node, .cgroup = lab.node_cgroup(node)};
    const Command command{.argv = agent_command(lab, node, more), .in = null.get(), .out = log.get(), .err = log.get()};
    return start_resident(lab.keeper(), place, command, lab.folder().agent_lock(node));
}

Result<> wait_agent_ready(const Lab &lab, const std::string &node, std::chrono::milliseconds timeout,
                          const Interrupted &interrupted)
{
    const auto deadline = Clock::now() + timeout;
    const auto log_end = [&] { return last_line(lab.folder().agent_log(node)); };

    while (!agent_ready(lab, node)) {
        auto presence = find_agent(lab, node);
        if (!presence)
            return std::unexpected(presence.error());
        if (!*presence)
            return fail("the agent on {} died: {}", node, log_end());
        if (interrupted && interrupted())
            return fail("interrupted");
        if (Clock::now() > deadline)
            return fail("the agent on {} is not ready after {} ms: {}", node, timeout.count(), log_end());
        std::this_thread::sleep_for(poll_interval);
    }
    return {};
}

Result<> stop_agent(const Lab &lab, const std::string &node)
{
    return end_agent(lab, node, SIGTERM);
}

Result<> kill_agent(const Lab &lab, const std::string &node)
{
    return end_agent(lab, node, SIGKILL);
}

Result<Presence> find_agent(const Lab &lab, const std::string &node)
{
    if (auto known = lab.node(node); !known)
        return std::unexpected(known.error());
    return find_presence(lab.folder().agent_lock(node));
}

bool agent_ready(const Lab &lab, const std::string &node)
{
    auto netns = lab.keeper().netns(node);
    if (!netns)
        return false;
    auto visit = NetnsVisit::enter(netns->get());
    if (!visit)
        return false;
    const SocketName health{.address = literal_address("127.0.0.1"), .port = health_port};
    return health_status(health).contains(" 200");
}

} // namespace thruway::lab
