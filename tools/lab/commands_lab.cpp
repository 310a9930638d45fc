// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/agents.h"
#include "tools/lab/commands.h"
#include "tools/lab/pods.h"
#include "tools/lab/signals.h"
#include "tools/lab/status.h"

#include <memory>
#include <poll.h>

namespace thruway::lab {
namespace {

constexpr int exit_cannot_run = 127; ///< of exec, as shells have it: told from the command's own failures
constexpr std::chrono::seconds ready_timeout(20);

void add_name(CLI::App &command, std::string &name)
{
    command.add_option("--name", name, "which lab")->capture_default_str();
}

/// "name", in the namespace default, or "namespace/name".
struct PodName {
    std::string space = "default";
    std::string name;

    explicit PodName(const std::string &text) : name(text)
    {
        if (const auto slash = text.find('/'); slash != std::string::npos) {
            space = text.substr(0, slash);
            name = text.substr(slash + 1);
        }
    }
};

/// Runs `action` on the lab of that name.
template<typename Action>
int with_lab(const std::string &name, const Action &action)
{
    auto lab = Lab::open(name);
    return exit_code(lab ? action(*lab) : std::unexpected(lab.error()));
}

int run_up(const Options &options)
{
    const Signals signals{SIGINT, SIGTERM, SIGHUP};
    const auto begin = std::chrono::steady_clock::now();
    auto lab = Lab::up(options, [&signals] { return signals.next().has_value(); });
    if (!lab)
        return exit_code(std::unexpected(lab.error()));
    lab->release();
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
    fmt::print("lab {} is up in {} ms: {} nodes, {} pods, and a client outside\n", options.name, took.count(),
               options.nodes, options.nodes * options.pods);
    return 0;
}

void add_up(CLI::App &app, int &code)
{
    auto options = std::make_shared<Options>();
    options->bin_dir = program_folder();
    auto *command = app.add_subcommand("up", "Make a lab: nodes on a fabric, pods on the nodes, a client outside");
    add_name(*command, options->name);
    command->add_option("--nodes", options->nodes, "how many nodes")->check(CLI::Range(1, 200))->capture_default_str();
    command->add_option("--pods", options->pods, "how many pods a node")
        ->check(CLI::Range(0, 200))
        ->capture_default_str();
    command->add_option("--mtu", options->mtu, "of all links")->check(CLI::Range(1280, 65535))->capture_default_str();
    command
        ->add_option_function<std::string>(
            "--fabric",
            [options](const std::string &text) {
                options->fabric = text == "routed" ? FabricKind::routed : FabricKind::switched;
            },
            "switched: nodes are neighbours; routed: each is on a subnet of its own")
        ->check(CLI::IsMember({"switched", "routed"}))
        ->default_str("switched");
    command->add_flag("--xdp", options->xdp, "wires that suit XDP, so that agents use it: no offloads");
    command
        ->add_option_function<std::string>(
            "--dataplane",
            [options](const std::string &text) {
                options->dataplane = text == "none" ? Dataplane::none : Dataplane::thruway;
            },
            "thruway, or none: kernel routes and no agents")
        ->check(CLI::IsMember({"thruway", "none"}))
        ->default_str("thruway");
    command->add_flag_callback(
        "--no-agents", [options] { options->agents = false; }, "start no agents: thruway-lab agent start does");
    command->add_option("--source", options->source, "what the agents follow [the lab's manifests]");
    command->add_option("--bin-dir", options->bin_dir, "where our programs are")->capture_default_str();
    command->add_option("agent_args", options->agent_args, "behind --: further arguments for the agents");
    command->callback([options, &code] {
        options->bin_dir = std::filesystem::absolute(options->bin_dir); // it is used from elsewhere
        code = run_up(*options);
    });
}

void add_down(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>("lab");
    auto *command = app.add_subcommand("down", "End a lab, or remove what a dead one left");
    add_name(*command, *name);
    command->callback([name, &code] { code = exit_code(Lab::down(*name)); });
}

void add_status(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>("lab");
    auto output = std::make_shared<std::string>("table");
    auto *command = app.add_subcommand("status", "Show a lab's nodes, pods, addresses and agents");
    add_name(*command, *name);
    command->add_option("-o,--output", *output, "table or json")
        ->check(CLI::IsMember({"table", "json"}))
        ->capture_default_str();
    command->callback([name, output, &code] {
        code = with_lab(*name, [&output](const Lab &lab) -> Result<> {
            auto text = *output == "json" ? status_json(lab) : status_table(lab);
            if (!text)
                return std::unexpected(text.error());
            fmt::print("{}", *text);
            return {};
        });
    });
}

/// Waits for the command and passes signals on to it. One from the terminal has reached it without us.
Result<Exit> attend(Process &process, const Signals &signals)
{
    while (true) {
        std::array<pollfd, 2> news{pollfd{.fd = process.pidfd(), .events = POLLIN, .revents = 0},
                                   pollfd{.fd = signals.fd(), .events = POLLIN, .revents = 0}};
        ::poll(news.data(), news.size(), -1);
        if (news[0].revents != 0)
            return process.wait({});
        while (const auto signal = signals.next()) {
            if (signal->ssi_code != SI_KERNEL)
                process.signal(static_cast<int>(signal->ssi_signo));
        }
    }
}

int run_exec(const std::string &name, const std::string &place, const std::vector<std::string> &argv)
{
    auto lab = Lab::open(name);
    if (!lab)
        return exit_code(std::unexpected(lab.error()));
    if (auto known = lab->place(place); !known)
        return exit_code(std::unexpected(known.error()));

    const Signals signals{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    auto process = lab->start(place, argv);
    if (!process) {
        print_error(process.error().text());
        return exit_cannot_run;
    }
    auto exit = attend(*process, signals);
    return exit ? exit->shell_code() : exit_code(std::unexpected(exit.error()));
}

void add_exec(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>("lab");
    auto place = std::make_shared<std::string>();
    auto argv = std::make_shared<std::vector<std::string>>();
    auto *command = app.add_subcommand("exec", "Run a command on a node, in a pod, or at the client or router.\n"
                                               "Exits as the command does, with 128 + signal if that killed it, "
                                               "with 127 if it cannot be run.");
    add_name(*command, *name);
    command->add_option("place", *place, "a node, a pod (NAME or NAMESPACE/NAME), client, or fabric")
        ->required()
        ->type_name("");
    command->add_option("command", *argv, "behind --: what to run")->required()->type_name("");
    command->callback([name, place, argv, &code] { code = run_exec(*name, *place, *argv); });
}

Result<> add_pod_and_tell(const Lab &lab, const PodSpec &spec)
{
    auto pod = add_pod(lab, spec);
    if (!pod)
        return std::unexpected(pod.error());
    for (const Address &address : pod->addresses)
        fmt::print("{}\n", address.text());
    return {};
}

void add_pod_commands(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>("lab");
    auto pod = std::make_shared<std::string>();
    auto spec = std::make_shared<PodSpec>();
    auto *command = app.add_subcommand("pod", "Add and delete pods");
    command->require_subcommand(1);

    auto *add = command->add_subcommand("add", "Make a pod with an echo server, and print its addresses");
    add_name(*add, *name);
    add->add_option("node", spec->node, "where")->required()->type_name("");
    add->add_option("pod", *pod, "NAME or NAMESPACE/NAME")->required()->type_name("");
    add->add_option("--tcp", spec->tcp, "a TCP port of the echo server")->default_str("8080");
    add->add_option("--udp", spec->udp, "a UDP port of the echo server")->default_str("8080");
    add->callback([name, pod, spec, &code] {
        const PodName parts(*pod);
        spec->space = parts.space;
        spec->name = parts.name;
        code = with_lab(*name, [&spec](const Lab &lab) { return add_pod_and_tell(lab, *spec); });
    });

    auto *remove = command->add_subcommand("delete", "Delete a pod");
    add_name(*remove, *name);
    remove->add_option("pod", *pod, "NAME or NAMESPACE/NAME")->required()->type_name("");
    remove->callback([name, pod, &code] {
        const PodName parts(*pod);
        code = with_lab(*name, [&parts](const Lab &lab) { return delete_pod(lab, parts.space, parts.name); });
    });
}

Result<> start_and_wait(const Lab &lab, const std::string &node, const std::vector<std::string> &more)
{
    if (auto started = start_agent(lab, node, more); !started)
        return started;
    return wait_agent_ready(lab, node, ready_timeout);
}

Result<> restart(const Lab &lab, const std::string &node, const std::vector<std::string> &more)
{
    if (auto stopped = stop_agent(lab, node); !stopped)
        return stopped;
    return start_and_wait(lab, node, more);
}

void add_agent_commands(CLI::App &app, int &code)
{
    struct Arguments {
        std::string name = "lab";
        std::string node;
        std::vector<std::string> more;
    };
    auto arguments = std::make_shared<Arguments>();
    auto *agent = app.add_subcommand("agent", "Start and end the agents of nodes");
    agent->require_subcommand(1);

    const auto add = [&](const char *verb, const char *help, bool takes_more, auto action) {
        auto *command = agent->add_subcommand(verb, help);
        add_name(*command, arguments->name);
        command->add_option("node", arguments->node, "whose")->required()->type_name("");
        if (takes_more)
            command->add_option("args", arguments->more, "behind --: further arguments")->type_name("");
        command->callback([arguments, action, &code] {
            code = with_lab(arguments->name, [&](const Lab &lab) { return action(lab, *arguments); });
        });
    };
    add("start", "Start an agent and wait until it is ready", true,
        [](const Lab &lab, const Arguments &a) { return start_and_wait(lab, a.node, a.more); });
    add("stop", "End an agent in order", false,
        [](const Lab &lab, const Arguments &a) { return stop_agent(lab, a.node); });
    add("kill", "End an agent as a crash does", false,
        [](const Lab &lab, const Arguments &a) { return kill_agent(lab, a.node); });
    add("restart", "Stop and start an agent", true,
        [](const Lab &lab, const Arguments &a) { return restart(lab, a.node, a.more); });
}

/// What `up` starts; not for people.
void add_keeper(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>();
    auto *command = app.add_subcommand("keeper")->group("");
    command->add_option("name", *name)->required();
    command->callback([name, &code] { code = run_keeper(Folder(*name)); });
}

} // namespace

void add_lab_commands(CLI::App &app, int &code)
{
    add_up(app, code);
    add_down(app, code);
    add_status(app, code);
    add_exec(app, code);
    add_pod_commands(app, code);
    add_agent_commands(app, code);
    add_keeper(app, code);
}

} // namespace thruway::lab
