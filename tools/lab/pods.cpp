// SPDX-License-Identifier: Apache-2.0
#include "tools/lab/pods.h"

#include "agent/base/file.h"
#include "tools/lab/cni.h"
#include "tools/lab/manifest.h"
#include "tools/lab/namespaces.h"
#include "tools/lab/plain.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/random.h>

namespace thruway::lab {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds echo_timeout(5);

std::string record_text(const Pod &pod)
{
    json addresses = json::array();
    for (const Address &address : pod.addresses)
        addresses.push_back(address.text());
    return json{
        {"namespace", pod.space}, {"name", pod.name},       {"node", pod.node},           {"tcp", pod.tcp},
        {"udp", pod.udp},         {"addresses", addresses}, {"container", pod.container},
    }
        .dump(2);
}

Result<Pod> read_record(const std::filesystem::path &path)
{
    auto text = read_file(path);
    if (!text)
        return std::unexpected(text.error());
    try {
        const json read = json::parse(*text);
        Pod pod;
        pod.space = read.at("namespace");
        pod.name = read.at("name");
        pod.node = read.at("node");
        read.at("tcp").get_to(pod.tcp);
        read.at("udp").get_to(pod.udp);
        pod.container = read.at("container");
        for (const auto &address : read.at("addresses"))
            pod.addresses.push_back(literal_address(address.get<std::string>()));
        return pod;
    } catch (const json::exception &error) {
        return fail("{}: {}", path.native(), error.what());
    }
}

/// Names become part of file names.
Result<> check_name(const std::string &name)
{
    const bool good = !name.empty() && name.size() <= 63 && std::ranges::all_of(name, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    });
    if (!good || name.front() == '.')
        return fail("\"{}\" is no name for a pod", name);
    return {};
}

std::string new_container()
{
    std::array<uint8_t, 16> bytes{};
    [[maybe_unused]] const auto got = ::getrandom(bytes.data(), bytes.size(), 0); // so few always come
    std::string text;
    for (const uint8_t byte : bytes)
        text += fmt::format("{:02x}", byte);
    return text;
}

/// Gives the pod its name, and with dataplane none its addresses, if nobody else has them.
Result<> reserve(const Lab &lab, Pod &pod)
{
    const auto record = lab.folder().pod_record(pod.id());
    if (auto written = lab.folder().write_new(record, record_text(pod)); !written)
        return written.error().code() == EEXIST ? fail("pod {}/{} exists already", pod.space, pod.name) : written;
    if (lab.options().dataplane != Dataplane::none)
        return {};
    auto addresses = plain_reserve(lab, pod.node);
    if (!addresses) {
        ::unlink(record.c_str());
        return std::unexpected(addresses.error());
    }
    pod.addresses = *addresses;
    return lab.folder().write(record, record_text(pod));
}

Result<> attach(const Lab &lab, Pod &pod)
{
    if (lab.options().dataplane == Dataplane::none)
        return plain_attach(lab, pod);
    auto addresses = cni_add(lab, pod);
    if (!addresses)
        return std::unexpected(addresses.error());
    pod.addresses = *addresses;
    return lab.folder().write(lab.folder().pod_record(pod.id()), record_text(pod));
}

Result<> detach(const Lab &lab, const Pod &pod)
{
    return lab.options().dataplane == Dataplane::none ? plain_detach(lab, pod) : cni_delete(lab, pod);
}

std::vector<std::string> echo_command(const Lab &lab, const Pod &pod)
{
    std::vector<std::string> argv{lab.options().bin_dir / "thruway-lab", "echo", "--name", pod.name};
    for (const uint16_t port : pod.tcp)
        argv.insert(argv.end(), {"--tcp", std::to_string(port)});
    for (const uint16_t port : pod.udp)
        argv.insert(argv.end(), {"--udp", std::to_string(port)});
    return argv;
}

/// Starts the echo server and waits for the line by which it says that it listens.
Result<> start_echo(const Lab &lab, const Pod &pod)
{
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0)
        return fail_errno("cannot make a pipe");
    const Fd listening(ends[0]);
    Fd out(ends[1]);
    const auto log_path = lab.folder().pod_log(pod.id());
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!log || !null)
        return fail_errno("cannot open {}", log_path.native());

    const Place place{.netns = pod.id(), .cgroup = lab.pods_cgroup(pod.node)};
    const Command command{.argv = echo_command(lab, pod), .in = null.get(), .out = out.get(), .err = log.get()};
    if (auto started = start_resident(lab.keeper(), place, command, lab.folder().pod_lock(pod.id())); !started)
        return started;
    out.reset();
    pollfd line{.fd = listening.get(), .events = POLLIN, .revents = 0};
    char first = 0;
    if (::poll(&line, 1, std::chrono::milliseconds(echo_timeout).count()) != 1 ||
        ::read(listening.get(), &first, 1) != 1)
        return fail("the echo server of pod {}/{} did not start: {}", pod.space, pod.name, last_line(log_path));
    return {};
}

/// Everything that a pod consists of, as far as it was made. Goes on after an error, and tells the first.
Result<> remove(const Lab &lab, const Pod &pod)
{
    Result<> first;
    const auto note = [&first](const Result<> &step) {
        if (first && !step)
            first = step;
    };
    note(kill_echo(lab, pod));
    note(detach(lab, pod));
    note(lab.remove_manifest(manifest_name(pod)));
    note(remove_netns(lab.keeper(), pod.id()));
    std::error_code ignored; // the record's removal below tells
    std::filesystem::remove(lab.folder().pod_lock(pod.id()), ignored);
    std::filesystem::remove(lab.folder().pod_log(pod.id()), ignored);
    if (first && ::unlink(lab.folder().pod_record(pod.id()).c_str()) != 0)
        return fail_errno("cannot remove the record of pod {}/{}", pod.space, pod.name);
    return first;
}

Result<> make(const Lab &lab, Pod &pod)
{
    const auto role = lab.options().dataplane == Dataplane::none ? NetnsRole::host : NetnsRole::bare;
    if (auto made = make_netns(lab.keeper(), pod.id(), role); !made)
        return made;
    if (auto attached = attach(lab, pod); !attached)
        return attached;
    if (auto started = start_echo(lab, pod); !started)
        return started;
    return lab.put_manifest(manifest_name(pod), manifest_text(pod));
}

} // namespace

Result<Pod> add_pod(const Lab &lab, const PodSpec &spec)
{
    if (auto node = lab.node(spec.node); !node)
        return std::unexpected(node.error());
    for (const auto &name : {spec.name, spec.space}) {
        if (auto good = check_name(name); !good)
            return std::unexpected(good.error());
    }
    Pod pod;
    static_cast<PodSpec &>(pod) = spec;
    pod.container = new_container();
    if (auto reserved = reserve(lab, pod); !reserved)
        return std::unexpected(reserved.error());
    if (auto made = make(lab, pod); !made) {
        [[maybe_unused]] const auto removed = remove(lab, pod);
        return fail_within(fmt::format("pod {}/{}", pod.space, pod.name), made.error());
    }
    return pod;
}

Result<> delete_pod(const Lab &lab, const std::string &space, const std::string &name)
{
    auto pod = find_pod(lab, space, name);
    if (!pod)
        return std::unexpected(pod.error());
    return remove(lab, *pod);
}

Result<> kill_echo(const Lab &lab, const Pod &pod)
{
    auto presence = find_presence(lab.folder().pod_lock(pod.id()));
    if (!presence)
        return std::unexpected(presence.error());
    return *presence ? end_process(*presence, SIGKILL, echo_timeout) : Result<>();
}

Result<Pod> find_pod(const Lab &lab, const std::string &space, const std::string &name)
{
    if (!check_name(space) || !check_name(name) ||
        !std::filesystem::exists(lab.folder().pod_record(fmt::format("{}_{}", space, name))))
        return fail("lab \"{}\" has no pod {}/{}", lab.options().name, space, name);
    return read_record(lab.folder().pod_record(fmt::format("{}_{}", space, name)));
}

Result<std::vector<Pod>> list_pods(const Lab &lab)
{
    std::vector<Pod> pods;
    std::error_code error;
    for (const auto &entry : std::filesystem::directory_iterator(lab.folder().pods(), error)) {
        if (entry.path().extension() != ".json")
            continue;
        auto pod = read_record(entry.path());
        // One that was deleted since the folder was read is no error.
        if (!pod && pod.error().code() == ENOENT)
            continue;
        if (!pod)
            return std::unexpected(pod.error());
        pods.push_back(std::move(*pod));
    }
    if (error)
        return fail_code(error.value(), "cannot list the pods of lab \"{}\"", lab.options().name);
    std::ranges::sort(pods, {}, &Pod::id);
    return pods;
}

} // namespace thruway::lab
