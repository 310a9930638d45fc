// SPDX-License-Identifier: Apache-2.0
#include "agent/base/yaml.h"

#include "agent/file/manifest.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <random>

using namespace thruway;

namespace {

Result<std::vector<std::string>> convert(std::string_view yaml)
{
    std::vector<std::string> documents;
    const auto done = yaml_to_json(yaml, [&](size_t, std::string json) -> Result<> {
        documents.push_back(std::move(json));
        return {};
    });
    if (!done)
        return std::unexpected(done.error());
    return documents;
}

std::string convert_one(std::string_view yaml)
{
    const auto documents = convert(yaml);
    INFO((documents ? std::string() : documents.error().text()));
    REQUIRE(documents);
    REQUIRE(documents->size() == 1);
    return documents->front();
}

struct Case {
    std::string_view yaml;
    std::string_view expected;
};

constexpr std::string_view service_yaml = R"(apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {app: web, "a/b": 'it''s'}
spec:
  clusterIP: 10.0.0.1
  ports:
  - name: http
    port: 80
  - {name: dns, port: 53, protocol: UDP}
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
)";

} // namespace

TEST_CASE("Plain scalars resolve as the core schema of YAML 1.2 says")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"null", "null"},
        {"Null", "null"},
        {"~", "null"},
        {"", "null"},
        {"true", "true"},
        {"True", "true"},
        {"FALSE", "false"},
        {"yes", R"("yes")"},
        {"on", R"("on")"},
        {"nUll", R"("nUll")"},
        {"0", "0"},
        {"80", "80"},
        {"-7", "-7"},
        {"+7", "7"},
        {"007", "7"},
        {"0x1F", "31"},
        {"0o17", "15"},
        {"0x", R"("0x")"},
        {"0o8", R"("0o8")"},
        {"1_000", R"("1_000")"},
        {"1.5", "1.5"},
        {"80.0", "80"},
        {"-.5", "-0.5"},
        {"1.", "1"},
        {"1e3", "1000"},
        {"+1.5e-1", "0.15"},
        {".", R"(".")"},
        {"1e", R"("1e")"},
        {"-", R"("-")"},
        {"+-5", R"("+-5")"},
        {"infinity", R"("infinity")"},
        {"1.2.3", R"("1.2.3")"},
        {"10.0.0.1", R"("10.0.0.1")"},
        {"fd00::1", R"("fd00::1")"},
        {"12:30", R"("12:30")"},
        {"2026-03-01T12:30:00Z", R"("2026-03-01T12:30:00Z")"},
        {"18446744073709551616", "18446744073709551616"},
    }));
    INFO(c.yaml);
    const std::string expected = "{\"a\":" + std::string(c.expected) + "}";
    // A lone dash would begin a sequence.
    CHECK(convert_one(c.yaml == "-" ? "{a: -}" : "a: " + std::string(c.yaml) + "\n") ==
          (c.yaml == "-" ? R"({"a":"-"})" : expected));
}

TEST_CASE("Quotes, block scalars and tags decide over what a scalar looks like")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {R"(a: "80")", R"({"a":"80"})"},
        {"a: 'null'", R"({"a":"null"})"},
        {R"(a: "")", R"({"a":""})"},
        {"a: !!str 80", R"({"a":"80"})"},
        {"a: !!str", R"({"a":""})"},
        {"a: !!str null", R"({"a":"null"})"},
        {"a: !!int \"80\"", R"({"a":80})"},
        {"a: !!float 80", R"({"a":80})"},
        {"a: !!bool true", R"({"a":true})"},
        {"a: !!null ''", R"({"a":null})"},
        {"a: !mine 80", R"({"a":"80"})"},
        {"a: |\n  x\n  y\n", R"({"a":"x\u000ay\u000a"})"},
        {"a: >-\n  x\n  y\n", R"({"a":"x y"})"},
        {R"(a: "\"\\\t/é\u00e9")", R"({"a":"\"\\\u0009/éé"})"},
    }));
    INFO(c.yaml);
    CHECK(convert_one(c.yaml) == c.expected);
}

TEST_CASE("Mappings and sequences keep their order and shape")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"a: 1\nb: 2\n", R"({"a":1,"b":2})"},
        {"- 1\n- - 2\n  - 3\n- {}\n- []\n", "[1,[2,3],{},[]]"},
        {"a:\n- b: 1\n  c: 2\n- d\n", R"({"a":[{"b":1,"c":2},"d"]})"},
        {"a:\nb:\n", R"({"a":null,"b":null})"},
        {R"({"a": {"b": [1, "x", null]}})", R"({"a":{"b":[1,"x",null]}})"},
        {"80: x\ntrue: y\n1.50: z\n", R"({"80":"x","true":"y","1.5":"z"})"},
        {"? a\n: b\n", R"({"a":"b"})"},
        {"a: b # comment\n# comment\n", R"({"a":"b"})"},
        {"\"a\\nb\": c\n", R"({"a\u000ab":"c"})"},
        {"a: b\r\nc: d\r\n", R"({"a":"b","c":"d"})"},
        {"just text", R"("just text")"},
    }));
    INFO(c.yaml);
    CHECK(convert_one(c.yaml) == c.expected);
}

TEST_CASE("Documents come one at a time, with the line where they begin")
{
    std::vector<std::pair<size_t, std::string>> documents;
    const auto done = yaml_to_json("# comment\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n---\n- c\n",
                                   [&](size_t line, std::string json) -> Result<> {
                                       documents.emplace_back(line, std::move(json));
                                       return {};
                                   });
    REQUIRE(done);
    CHECK(documents ==
          std::vector<std::pair<size_t, std::string>>{{2, R"({"a":1})"}, {6, R"({"b":2})"}, {9, R"(["c"])"}});

    for (const std::string_view empty : {"", "\n", "# comment\n", "---\n", "---\n---\n", "%YAML 1.2\n---\n"})
        CHECK(convert(empty).value().empty());
}

TEST_CASE("An error of the receiver ends the reading")
{
    size_t documents = 0;
    const auto done = yaml_to_json("a: 1\n---\nb: 2\n", [&](size_t, const std::string &) -> Result<> {
        documents++;
        return fail("enough");
    });
    REQUIRE_FALSE(done);
    CHECK(done.error().text() == "enough");
    CHECK(documents == 1);
}

TEST_CASE("Aliases stand for what they name")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"a: &x 80\nb: *x\n", R"({"a":80,"b":80})"},
        {"a: &x {b: [1]}\nc: [*x, *x]\n", R"({"a":{"b":[1]},"c":[{"b":[1]},{"b":[1]}]})"},
        {"a: &x\nb: *x\n", R"({"a":null,"b":null})"},
        {"&k a: 1\nb: *k\n", R"({"a":1,"b":"a"})"},
        {"a: &x b\n*x : c\n", R"({"a":"b","b":"c"})"},
        {"a: &x 1\nb: &x 2\nc: *x\n", R"({"a":1,"b":2,"c":2})"},
        {"a: &x {b: &y 1}\nc: *y\n", R"({"a":{"b":1},"c":1})"},
    }));
    INFO(c.yaml);
    CHECK(convert_one(c.yaml) == c.expected);
}

TEST_CASE("Merge keys add what a mapping does not say itself")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\n", R"({"a":{"b":1,"c":2},"d":{"c":3,"b":1}})"},
        {"a: &x {b: 1}\nd:\n  c: 3\n  b: 4\n  <<: *x\n", R"({"a":{"b":1},"d":{"c":3,"b":4}})"},
        {"- &x {b: 1}\n- &y {b: 2, c: 3}\n- <<: [*x, *y]\n", R"([{"b":1},{"b":2,"c":3},{"b":1,"c":3}])"},
        {"<<: {a: [1, {b: \"},\"}], \"x\\\"y\": 2}\n", R"({"a":[1,{"b":"},"}],"x\"y":2})"},
        {"<<: {}\n", "{}"},
        {"a: &x {<<: {b: 1}, c: 2}\nd: {<<: *x}\n", R"({"a":{"c":2,"b":1},"d":{"c":2,"b":1}})"},
        {"\"<<\": 1\n", R"({"<<":1})"},
    }));
    INFO(c.yaml);
    CHECK(convert_one(c.yaml) == c.expected);
}

TEST_CASE("What is not YAML, or has no place in JSON, is an error with line and column")
{
    const auto c = GENERATE(from_range(std::vector<Case>{
        {"a: 1\nb: [1, 2\nc: 3\n", "line "},
        {"a: \"b", "line 1, column "},
        {"a: b: c\n", "line 1, column 5: "},
        {"a: 1\n  b: 2\n", "line 2, column "},
        {"a: {b: c\n", "line "},
        {"a: 1\nb: 2\na: 3\n", R"(line 3, column 1: key "a" is given twice)"},
        {"a: {b: 1, b: 2}\n", R"(line 1, column 11: key "b" is given twice)"},
        {"80: 1\n\"80\": 2\n", R"(line 2, column 1: key "80" is given twice)"},
        {"a: 1\nb\n", "line "},
        {"a: *b\n", "line 1, column 4: "},
        {"a: &x [*x]\n", "line 1, column 8: "},
        {"a: &x 1\n---\nb: *x\n", "line 3, column 4: "},
        {"{a: b}: c\n", "line 1, column "},
        {"? [a]\n: c\n", "line 1, column 3: a key must be a plain word"},
        {"null: c\n", "line 1, column 1: a key must be a plain word"},
        {": c\n", "line 1, column 1: "},
        {"<<: 5\n", "line 1, column 5: the value of << must be a mapping or a list of mappings"},
        {"<<: [{a: 1}, 5]\n", "line 1, column 5: the value of << must be a mapping or a list of mappings"},
        {"a: .inf\n", "line 1, column 4: JSON has no number for .inf"},
        {"a: 1e999\n", "line 1, column 4: JSON has no number for 1e999"},
        {"a: !!int x\n", R"(line 1, column 4: "x" is not of type int)"},
        {"a: !!float x\n", R"(line 1, column 4: "x" is not a number)"},
        {"- a\nb: c\n", "line 2, column 1: "},
        {"a: 1\n...\nb: 2\n", "line 3, column 1: "},
        {"a: 1\nb: \x04\n", "line 2: control character"},
        {"a: \xff\n", ""},
    }));
    INFO(c.yaml);
    const auto documents = convert(c.yaml);
    REQUIRE_FALSE(documents);
    INFO(documents.error().text());
    CHECK(documents.error().text().starts_with(c.expected));
}

TEST_CASE("Documents that blow up by aliases, or nest without end, are refused")
{
    std::string bomb = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n";
    for (int i = 1; i < 20; i++) {
        const std::string last = fmt::format("*a{}", i - 1);
        bomb +=
            fmt::format("a{}: &a{} [{},{},{},{},{},{},{},{}]\n", i, i, last, last, last, last, last, last, last, last);
    }
    const auto blown = convert(bomb);
    REQUIRE_FALSE(blown);
    CHECK(blown.error().text().ends_with("aliases make this document too large"));

    for (const std::string_view opening : {"[", "{a: ", "- "}) {
        std::string deep;
        for (int i = 0; i < 100'000; i++)
            deep += opening;
        const auto nested = convert(deep);
        REQUIRE_FALSE(nested);
        CHECK(nested.error().text().ends_with("nested too deeply"));
    }
}

TEST_CASE("A manifest is read as YAML or JSON by its name")
{
    Decoder decoder;
    const auto objects = read_manifest(decoder, "a.yaml", "\xef\xbb\xbf" + std::string(service_yaml));
    REQUIRE(objects);
    REQUIRE(objects->size() == 2);
    CHECK((*objects)[0].key == ObjectKey{Kind::service, {Symbol("default"), "web"}});
    CHECK((*objects)[1].key == ObjectKey{Kind::name_space, {Symbol(), "shop"}});

    CHECK(read_manifest(decoder, "a.json", R"({"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}})")
              .value()
              .size() == 1);
    CHECK_FALSE(read_manifest(decoder, "a.json", std::string(service_yaml)));
    CHECK(read_manifest(decoder, "a.yml", "a: 1\n---\nmetadata: {}\n").value()[1].faults ==
          std::vector<std::string>{"object in line 2: kind: missing"});
    CHECK(read_manifest(decoder, "a.yml", "\n- a\n").error().text() == "line 2: must be an object");

    for (const std::string_view name : {"a.yaml", "a.yml", "a.json", "a.b.yaml"})
        CHECK(is_manifest(name));
    for (const std::string_view name :
         {"a.txt", "a", ".a.yaml", ".#a.yaml", "a.yaml~", "#a.yaml#", "a.yaml.swp", "..data"})
        CHECK_FALSE(is_manifest(name));
}

TEST_CASE("A flow document that was cut off is never believed, and a block one only up to a whole line")
{
    Decoder decoder;
    const std::string flow = R"({apiVersion: v1, kind: Service, metadata: {name: "web"},
        spec: {clusterIP: 10.0.0.1, ports: [{port: 80, name: 'a'}]}})";
    for (size_t size = 1; size < flow.size(); size++) {
        INFO(flow.substr(0, size));
        CHECK_FALSE(read_manifest(decoder, "a.yaml", flow.substr(0, size)));
    }

    const auto whole = read_manifest(decoder, "a.yaml", std::string(service_yaml)).value();
    for (size_t size = 1; size < service_yaml.size(); size++) {
        INFO(service_yaml.substr(0, size));
        const auto cut = read_manifest(decoder, "a.yaml", std::string(service_yaml.substr(0, size)));
        const bool ends_in_first = size <= service_yaml.find("---");
        if (!cut)
            continue;
        REQUIRE(cut->size() <= whole.size());
        if (!ends_in_first)
            CHECK(cut->front().object == whole.front().object);
    }
}

TEST_CASE("No damage to a YAML text crashes the reader")
{
    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    constexpr std::string_view spice = "{}[]\",:'|>-?&*!%#@ \n\t\\~<0a\xc3";
    Decoder decoder;
    for (int round = 0; round < 5'000; round++) {
        std::string text(service_yaml);
        for (unsigned i = 0; i <= random() % 4; i++) {
            const size_t at = random() % text.size();
            if (random() % 2 == 0)
                text[at] = spice[random() % spice.size()];
            else
                text.insert(at, 1, spice[random() % spice.size()]);
        }
        const auto objects = read_manifest(decoder, "a.yaml", text);
        if (!objects && objects.error().text().empty())
            FAIL(text);
    }
}
