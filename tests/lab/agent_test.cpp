// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/fixture.h"
#include "tools/lab/agents.h"

#include <filesystem>
#include <fstream>

// What the lab does with agents and with the CNI plugin, with stand-ins for both.
namespace thruway::lab {
namespace {

using std::chrono::milliseconds;

/// Writes down how it was called, and gives pods of any name the same addresses; refuses one called "unlucky".
constexpr const char *fake_cni = R"(#!/bin/sh
folder=$(dirname "$0")
cat > "$folder/cni.config"
env | grep ^CNI_ | sort > "$folder/cni.env"
test -e "$CNI_NETNS" || exit 3
case "$CNI_COMMAND $CNI_ARGS" in
ADD*=unlucky) echo '{"cniVersion":"1.0.0","code":11,"msg":"try again later","details":"no address left"}'; exit 1 ;;
ADD*) echo '{"cniVersion":"1.0.0","ips":[{"address":"10.244.1.9/32"},{"address":"fd00:10:244:1::9/128"}]}' ;;
esac
)";

/// A folder with our programs, two of them fakes.
class Programs {
public:
    Programs() : folder_(std::filesystem::temp_directory_path() / unique_name())
    {
        std::filesystem::create_directory(folder_);
        std::filesystem::create_symlink(program(), folder_ / "thruway-lab");
        std::filesystem::create_symlink(program_folder() / "lab_fake_agent", folder_ / "thruway-agent");
        std::ofstream(folder_ / "thruway-cni") << fake_cni;
        std::filesystem::permissions(folder_ / "thruway-cni", std::filesystem::perms::owner_all);
    }
    Programs(const Programs &) = delete;
    Programs &operator=(const Programs &) = delete;
    ~Programs() { std::filesystem::remove_all(folder_); }

    [[nodiscard]] const std::filesystem::path &folder() const { return folder_; }
    [[nodiscard]] Options options() const { return {.name = unique_name(), .nodes = 1, .pods = 0, .bin_dir = folder_}; }

private:
    std::filesystem::path folder_;
};

TEST_CASE("an agent is started as the contract says, in its node")
{
    const Programs programs;
    Options options = programs.options();
    options.agent_args = {"--extra", "one"};
    const Lab lab = must(Lab::up(options));
    const std::string root = lab.folder().root();
    CHECK(must(read_file(lab.folder().agent_log("node1"))) ==
          fmt::format("--node\nnode1\n--source\nfile:{0}/manifests\n--uplink\neth0\n--run-dir\n{0}/nodes/node1/run\n"
                      "--bpffs\n{0}/nodes/node1/bpf\n--cgroup\n{1}\n--extra\none\n",
                      root, lab.node_cgroup("node1").native()));

    const pid_t agent = must(find_agent(lab, "node1")).pid;
    CHECK(pid_namespace(agent) == pid_namespace(lab.keeper().presence().pid));
    CHECK(must(read_file(lab.node_cgroup("node1") / "cgroup.procs")) == fmt::format("{}\n", agent));
    const Output mounts = must(lab.run("node1", {"stat", "-f", "-c", "%T", lab.folder().bpffs("node1")}));
    CHECK(mounts.out.find("bpf") != std::string::npos);
}

TEST_CASE("agents end, die and come back")
{
    const Programs programs;
    const Lab lab = must(Lab::up(programs.options()));
    const pid_t first = must(find_agent(lab, "node1")).pid;
    CHECK(start_agent(lab, "node1").error().text().find("runs already") != std::string::npos);

    must(kill_agent(lab, "node1"));
    CHECK_FALSE(must(find_agent(lab, "node1")));
    CHECK_FALSE(agent_ready(lab, "node1"));
    CHECK_FALSE(kill_agent(lab, "node1").has_value());
    must(start_agent(lab, "node1"));
    must(wait_agent_ready(lab, "node1", milliseconds(5000)));
    CHECK(must(find_agent(lab, "node1")).pid != first);
    must(stop_agent(lab, "node1"));
    CHECK_FALSE(start_agent(lab, "node2").has_value());

    must(start_agent(lab, "node1", {"--mute"}));
    const auto late = wait_agent_ready(lab, "node1", milliseconds(300));
    REQUIRE_FALSE(late.has_value());
    CHECK(late.error().text().find("not ready after 300 ms: --mute") != std::string::npos);
}

TEST_CASE("an agent that dies at start ends the lab, and its last words are told")
{
    const Programs programs;
    Options options = programs.options();
    options.agent_args = {"--die"};
    const auto lab = Lab::up(options);
    REQUIRE_FALSE(lab.has_value());
    CHECK(lab.error().text() == "the agent on node1 died: uplink eth9: no such interface");
    CHECK_FALSE(std::filesystem::exists(Folder(options.name).root()));
}

TEST_CASE("the CNI plugin is called as a runtime does")
{
    const Programs programs;
    const Lab lab = must(Lab::up(programs.options()));
    const Pod pod = must(add_pod(lab, {.node = "node1", .name = "web", .space = "shop"}));
    CHECK(pod.addresses == std::vector{literal_address("10.244.1.9"), literal_address("fd00:10:244:1::9")});

    const auto environment = [&](const char *verb) {
        return fmt::format("CNI_ARGS=K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web\nCNI_COMMAND={}\nCNI_CONTAINERID={}\n"
                           "CNI_IFNAME=eth0\nCNI_NETNS=/run/netns/shop_web\nCNI_PATH={}\n",
                           verb, pod.container, programs.folder().native());
    };
    CHECK(must(read_file(programs.folder() / "cni.env")) == environment("ADD"));
    const auto config = nlohmann::json::parse(must(read_file(programs.folder() / "cni.config")));
    CHECK(config["cniVersion"] == "1.0.0");
    CHECK(config["type"] == "thruway-cni");
    CHECK(config["socket"] == (lab.folder().run_dir("node1") / "agent.sock").native());
    const auto manifest = nlohmann::json::parse(must(read_file(lab.folder().manifest("pod-shop_web"))));
    CHECK(manifest["status"]["podIP"] == "10.244.1.9");

    must(delete_pod(lab, "shop", "web"));
    CHECK(must(read_file(programs.folder() / "cni.env")) == environment("DEL"));
    CHECK_FALSE(std::filesystem::exists(lab.folder().manifest("pod-shop_web")));
}

TEST_CASE("a CNI plugin's refusal is told, and nothing of the pod stays")
{
    const Programs programs;
    const Lab lab = must(Lab::up(programs.options()));
    const auto pod = add_pod(lab, {.node = "node1", .name = "unlucky"});
    REQUIRE_FALSE(pod.has_value());
    CHECK(pod.error().text() == "pod default/unlucky: thruway-cni ADD: try again later (code 11, no address left)");
    CHECK(must(list_pods(lab)).empty());
    CHECK(must(lab.run("node1", {"ls", "/run/netns"})).out == "client\nfabric\nnode1\n");
}

} // namespace
} // namespace thruway::lab
