// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/ask.h"
#include "tools/lab/bulk.h"
#include "tools/lab/commands.h"
#include "tools/lab/echo.h"
#include "tools/lab/hold.h"
#include "tools/lab/sctp.h"
#include "tools/lab/signals.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace thruway::lab {
namespace {

using json = nlohmann::ordered_json;

/// Where to, as the commands take it.
struct Target {
    std::string text;

    [[nodiscard]] SocketName name() const { return parse_socket_name(text).value(); }
};

/// Checks an argument by a function that parses it.
CLI::Validator parsed_by(Result<SocketName> (*parse)(std::string_view))
{
    return {[parse](const std::string &text) {
                auto parsed = parse(text);
                return parsed ? std::string() : parsed.error().text();
            },
            ""};
}

void add_target(CLI::App &command, Target &target)
{
    command.add_option("target", target.text, "an echo server, or a frontend of one: ADDRESS:PORT, [ADDRESS]:PORT")
        ->required()
        ->check(parsed_by(parse_socket_name))
        ->type_name("");
}

void add_output(CLI::App &command, std::string &output)
{
    command.add_option("-o,--output", output, "table or json")
        ->check(CLI::IsMember({"table", "json"}))
        ->default_str("table");
}

double milliseconds(Clock::duration duration)
{
    return std::chrono::duration<double, std::milli>(duration).count();
}

void add_echo(CLI::App &app, int &code)
{
    auto options = std::make_shared<EchoOptions>();
    auto *command = app.add_subcommand("echo", "Serve: say a name and who the client is, and send everything back");
    command->add_option("--name", options->name, "what to call itself")->required();
    auto *tcp = command->add_option("--tcp", options->tcp, "a TCP port to listen on");
    auto *udp = command->add_option("--udp", options->udp, "a UDP port to listen on");
    command->callback([options, tcp, udp, &code] {
        if (tcp->empty() && udp->empty())
            throw CLI::RequiredError("--tcp or --udp");
        code = exit_code(serve_echo(*options));
    });
}

struct AskCommand {
    AskOptions ask;
    std::string transport;
    Target target;
    std::string source;
    unsigned count = 1;
    unsigned timeout = 1000;
    std::string output;
};

json answer_json(const Answer &answer)
{
    const SocketName client = parse_socket_name(answer.client).value_or(SocketName{});
    return {{"name", answer.name},
            {"client_address", client.address.text()},
            {"client_port", client.port},
            {"milliseconds", milliseconds(answer.took)}};
}

int run_ask(AskCommand &command)
{
    command.ask.transport = command.transport == "udp" ? Transport::udp : Transport::tcp;
    command.ask.target = command.target.name();
    command.ask.timeout = std::chrono::milliseconds(command.timeout);
    if (!command.source.empty())
        command.ask.source = parse_source(command.source).value();

    const bool as_json = command.output == "json";
    json answers = json::array();
    unsigned failed = 0;
    for (unsigned i = 0; i < command.count; i++) {
        auto answer = ask(command.ask);
        if (!answer) {
            failed++;
            answers.push_back({{"error", answer.error().text()}});
            if (!as_json)
                print_error(fmt::format("{} {}: {}", command.transport, command.target.text, answer.error().text()));
            continue;
        }
        answers.push_back(answer_json(*answer));
        if (!as_json)
            fmt::print("{} {}\n", answer->name, answer->client);
    }
    if (as_json)
        fmt::print("{}\n", answers.dump(2));
    return failed ? exit_failed : 0;
}

void add_ask(CLI::App &app, int &code)
{
    auto options = std::make_shared<AskCommand>();
    auto *command = app.add_subcommand("ask", "Ask an echo server for its name and the client address that it sees");
    command->add_option("transport", options->transport, "tcp or udp")
        ->required()
        ->check(CLI::IsMember({"tcp", "udp"}))
        ->type_name("");
    add_target(*command, options->target);
    command->add_option("--count", options->count, "how often, one after the other")->capture_default_str();
    command->add_option("--timeout", options->timeout, "milliseconds to wait for each")->capture_default_str();
    command->add_option("--source", options->source, "local ADDRESS or ADDRESS:PORT to ask from")
        ->check(parsed_by(parse_source))
        ->type_name("");
    add_output(*command, options->output);
    command->callback([options, &code] { code = run_ask(*options); });
}

int run_bulk(const BulkOptions &options)
{
    auto report = bulk(options);
    if (!report) {
        print_error(fmt::format("bulk {}: {}", options.target.text(), report.error().text()));
        return exit_failed;
    }
    const double seconds = report->took.count();
    fmt::print("{}: {} bytes there and back unchanged in {:.3f} s, {:.1f} MB/s\n", report->name, report->bytes, seconds,
               static_cast<double>(report->bytes) / seconds / 1e6);
    return 0;
}

void add_bulk(CLI::App &app, int &code)
{
    auto options = std::make_shared<BulkOptions>();
    auto target = std::make_shared<Target>();
    auto *command = app.add_subcommand("bulk", "Send random bytes through an echo server by TCP and compare every one");
    add_target(*command, *target);
    command->add_option("--bytes", options->bytes, "how many")->required();
    command->add_option("--seed", options->seed, "which ones")->capture_default_str();
    command->add_option("--rate", options->rate, "bytes to send a second, at most");
    command->add_flag_callback(
        "--after-input", [options] { options->until = STDIN_FILENO; },
        "send until standard input ends, and then as many bytes more");
    command->callback([options, target, &code] {
        options->target = target->name();
        code = run_bulk(*options);
    });
}

void add_problems(json &list, const char *which, const Tally &tally)
{
    for (const auto &[reason, count] : tally.problems)
        list.push_back({{"connection", which}, {"reason", reason}, {"count", count}});
}

json report_json(const HoldOptions &options, const HoldReport &report)
{
    json problems = json::array();
    add_problems(problems, "held", report.held);
    add_problems(problems, "short", report.brief);
    json backends = json::array();
    for (const auto &[name, served] : report.backends)
        backends.push_back({{"name", name}, {"held", served.held}, {"lost", served.lost}, {"short", served.brief}});
    json own_faults = json::array();
    for (const auto &[reason, count] : report.own_faults)
        own_faults.push_back({{"reason", reason}, {"count", count}});

    Tally all = report.held;
    all.add(report.brief);
    return {
        {"transport", options.transport == Transport::tcp ? "tcp" : "udp"},
        {"target", options.target.text()},
        {"seconds", report.measured.count()},
        {"connections", report.connections},
        {"established", report.established},
        {"lost", report.lost},
        {"refused", report.problems("refused")},
        {"timeouts", report.problems("timeout")},
        {"short_ok", report.short_ok},
        {"short_failed", report.short_failed},
        {"messages_sent", all.sent},
        {"messages_answered", all.answered},
        {"messages_repeated", all.repeated},
        {"segments_retransmitted", all.retransmitted},
        {"slowest_connect_ms", milliseconds(all.slowest_connect)},
        {"slowest_answer_ms", milliseconds(all.slowest_answer)},
        {"longest_own_pause_ms", milliseconds(report.longest_pause)},
        {"problems", problems},
        {"own_faults", own_faults},
        {"backends", backends},
    };
}

void print_report(const json &report)
{
    for (const auto &[key, value] : report.items()) {
        if (!value.is_array())
            fmt::print("{:24} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
    for (const char *list : {"problems", "own_faults", "backends"}) {
        for (const auto &entry : report.at(list))
            fmt::print("{:24} {}\n", list, entry.dump());
    }
}

struct HoldCommand {
    HoldOptions hold;
    Target target;
    bool udp = false;
    double seconds = 10;
    unsigned interval = 100;
    unsigned timeout = 5000;
    std::string output;
};

int run_hold(HoldCommand &command)
{
    HoldOptions &options = command.hold;
    options.target = command.target.name();
    options.transport = command.udp ? Transport::udp : Transport::tcp;
    options.length = std::chrono::duration<double>(command.seconds);
    options.interval = std::chrono::milliseconds(command.interval);
    options.timeout = std::chrono::milliseconds(command.timeout);

    const Signals signals{SIGINT, SIGTERM};
    const HoldHooks hooks{
        .interrupted = [&signals] { return signals.next().has_value(); },
        .held_decided = [](size_t open) { fmt::print(stderr, "holding {}\n", open); },
    };
    const HoldReport report = hold(options, hooks);
    const json all = report_json(options, report);
    if (command.output == "json")
        fmt::print("{}\n", all.dump(2));
    else
        print_report(all);
    return report.good() ? 0 : exit_failed;
}

void add_hold(CLI::App &app, int &code)
{
    auto options = std::make_shared<HoldCommand>();
    auto *command = app.add_subcommand(
        "hold", "Keep connections to an echo server busy, open and close others, and account for every one.\n"
                "Says \"holding N\" on standard error when the N held ones stand; ends early on SIGINT or SIGTERM.");
    add_target(*command, options->target);
    command->add_option("--connections", options->hold.connections, "how many to hold")->capture_default_str();
    command->add_option("--rate", options->hold.rate, "short ones to open a second")->capture_default_str();
    command->add_option("--seconds", options->seconds, "how long, from when those held are open")
        ->capture_default_str();
    command->add_option("--interval", options->interval, "milliseconds between messages on a held one")
        ->capture_default_str();
    command->add_option("--timeout", options->timeout, "milliseconds after which one without an answer is given up")
        ->capture_default_str();
    command->add_flag("--udp", options->udp, "datagrams; \"lost\" counts those without an answer");
    add_output(*command, options->output);
    command->callback([options, &code] { code = run_hold(*options); });
}

void add_sctp_serve(CLI::App &app, int &code)
{
    auto name = std::make_shared<std::string>();
    auto listen = std::make_shared<std::vector<std::string>>();
    auto *command = app.add_subcommand(
        "sctp-serve", "Serve by SCTP: answer each message with a name, who the client is, and the message");
    command->add_option("--name", *name, "what to call itself")->required();
    command->add_option("listen", *listen, "each an end with one address: ADDRESS:PORT, [ADDRESS]:PORT")
        ->required()
        ->check(parsed_by(parse_socket_name))
        ->type_name("");
    command->callback([name, listen, &code] {
        SctpServeOptions options{.name = *name, .listen = {}};
        for (const std::string &text : *listen)
            options.listen.push_back(parse_socket_name(text).value());
        code = exit_code(serve_sctp(options));
    });
}

struct SctpDialCommand {
    SctpDialOptions dial;
    Target target;
    unsigned pause = 0;
    unsigned timeout = 1000;
    std::string output;
};

int run_sctp_dial(SctpDialCommand &command)
{
    command.dial.target = command.target.name();
    command.dial.pause = std::chrono::milliseconds(command.pause);
    command.dial.timeout = std::chrono::milliseconds(command.timeout);
    const auto answer = dial_sctp(command.dial);
    if (command.output == "json")
        fmt::print("{}\n", (answer ? answer_json(*answer) : json{{"error", answer.error().text()}}).dump(2));
    else if (answer)
        fmt::print("{} {}\n", answer->name, answer->client);
    else
        print_error(fmt::format("sctp {}: {}", command.target.text, answer.error().text()));
    return answer ? 0 : exit_failed;
}

void add_sctp_dial(CLI::App &app, int &code)
{
    auto options = std::make_shared<SctpDialCommand>();
    auto *command = app.add_subcommand(
        "sctp-dial", "Set up an association with an SCTP server, compare what it answers, and shut it down");
    add_target(*command, options->target);
    command->add_option("--messages", options->dial.messages, "how many, one after the other")->capture_default_str();
    command->add_option("--size", options->dial.size, "bytes of each")->capture_default_str();
    command->add_option("--pause", options->pause, "milliseconds before each message but the first")
        ->capture_default_str();
    command->add_option("--timeout", options->timeout, "milliseconds to wait for setup, each answer and shutdown")
        ->capture_default_str();
    command->add_option("--source-port", options->dial.source_port, "0 for any")->capture_default_str();
    add_output(*command, options->output);
    command->callback([options, &code] { code = run_sctp_dial(*options); });
}

} // namespace

void add_traffic_commands(CLI::App &app, int &code)
{
    add_echo(app, code);
    add_ask(app, code);
    add_bulk(app, code);
    add_hold(app, code);
    add_sctp_serve(app, code);
    add_sctp_dial(app, code);
}

} // namespace thruway::lab
