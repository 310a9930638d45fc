// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/fixture.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sys/wait.h>
#include <unistd.h>

namespace thruway::lab {

std::string unique_name()
{
    static int count = 0;
    return fmt::format("test-{}-{}", ::getpid(), ++count);
}

void must(const Result<> &result)
{
    INFO((result ? std::string() : result.error().text()));
    REQUIRE(result.has_value());
}

Lab plain_lab(Options options)
{
    options.name = unique_name();
    options.dataplane = Dataplane::none;
    options.bin_dir = program_folder();
    return must(Lab::up(options));
}

nlohmann::json ask_from(const Lab &lab, const std::string &place, const std::string &transport,
                        const std::string &target)
{
    const Output output =
        must(lab.run(place, {program(), "ask", transport, target, "--timeout", "3000", "-o", "json"}));
    INFO(output.err);
    const auto answers = nlohmann::json::parse(output.out);
    REQUIRE(answers.size() == 1);
    CHECK(output.exit.good() == answers[0].contains("name"));
    return answers[0];
}

Shell shell(const std::string &command)
{
    FILE *pipe = ::popen(fmt::format("( {} ) 2>&1", command).c_str(), "re");
    REQUIRE(pipe);
    Shell result;
    std::array<char, 4096> buffer{};
    for (size_t got = 0; (got = ::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
        result.out.append(buffer.data(), got);
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return result;
}

std::string program()
{
    return program_folder() / "thruway-lab";
}

std::string pid_namespace(pid_t pid)
{
    std::error_code ignored; // gone: empty
    return std::filesystem::read_symlink(fmt::format("/proc/{}/ns/pid", pid), ignored);
}

size_t processes_in(const std::string &wanted)
{
    size_t count = 0;
    for (const auto &entry : std::filesystem::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") == std::string::npos)
            count += pid_namespace(std::stoi(name)) == wanted;
    }
    return count;
}

} // namespace thruway::lab
