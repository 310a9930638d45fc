// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <simdjson.h>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thruway {

/// `text` in quotes and fit for one line: control characters spelled out, cut off when it is long.
std::string quoted(std::string_view text);

/// What is wrong with one object. The first fault that refuses the object ends its reading: from then on every field
/// reads as empty, so code that fills in a struct asks once, at its end, and not after each field.
class Faults {
public:
    /// The object cannot be used.
    void refuse(std::string_view field, std::string_view reason);
    /// Without the parts that were skipped the object cannot be used.
    void refuse() { refused_ = true; }
    /// This part of the object cannot be used, the rest can.
    void skip(std::string_view field, std::string_view reason);
    /// The text is not JSON: neither this object nor what follows it can be read.
    void give_up(simdjson::error_code error);

    [[nodiscard]] bool refused() const { return refused_; }
    [[nodiscard]] bool stopped() const { return refused_ || broken_ != simdjson::SUCCESS; }
    [[nodiscard]] simdjson::error_code broken() const { return broken_; }

    /// "field: reason" of each fault.
    [[nodiscard]] const std::vector<std::string> &lines() const { return lines_; }

private:
    std::vector<std::string> lines_;
    bool refused_ = false;
    simdjson::error_code broken_ = simdjson::SUCCESS;
};

/// A JSON value on its way into a struct, with the way that led to it, which is spelled only if there is a fault:
/// "spec.ports[1].port". A value can be read once, in the order of the text; only each_field may be called again, to
/// read other fields. null reads as absent, as Go's decoder has it.
class Field {
public:
    using Value = simdjson::ondemand::value;
    using Object = simdjson::ondemand::object;

    /// The outermost value.
    Field(const Value &value, Faults &faults) : value_(value), faults_(faults) {}
    /// A value inside of `parent`, which must outlive it.
    Field(const Value &value, const Field &parent, std::string_view key)
        : value_(value), faults_(parent.faults_), parent_(&parent), key_(key)
    {
    }
    Field(const Value &value, const Field &parent, size_t index)
        : value_(value), faults_(parent.faults_), parent_(&parent), index_(index)
    {
    }

    /// Valid as long as the document. Empty if absent.
    std::string_view text();
    std::optional<bool> flag();
    std::optional<int64_t> number();

    /// Calls handle(std::string_view key, Field value) for each field of an object.
    template<typename Handle>
    void each_field(Handle handle)
    {
        if (!open_object())
            return;
        for (auto entry : object_) {
            simdjson::ondemand::field field;
            if (!take(std::move(entry).get(field)))
                return;
            const std::string_view key = key_of(field);
            handle(key, Field(field.value(), *this, key));
            if (faults_.stopped())
                return;
        }
    }

    /// Calls handle(Field item, size_t index) for each item of an array.
    template<typename Handle>
    void each_item(Handle handle)
    {
        simdjson::ondemand::array array;
        if (!is(simdjson::ondemand::json_type::array, "a list") || !take(value_.get_array().get(array)))
            return;
        size_t index = 0;
        for (auto item : array) {
            Value value;
            if (!take(std::move(item).get(value)))
                return;
            handle(Field(value, *this, index), index);
            if (faults_.stopped())
                return;
            index++;
        }
    }

    void refuse(std::string_view reason) const { faults_.refuse(path(), reason); }
    void skip(std::string_view reason) const { faults_.skip(path(), reason); }

    [[nodiscard]] const Value &value() const { return value_; }
    [[nodiscard]] Faults &faults() const { return faults_; }

    /// "spec.ports[1].port"; empty for the outermost value.
    [[nodiscard]] std::string path() const;

private:
    static constexpr size_t no_index = SIZE_MAX;

    /// The text of a key as it stands between its quotes. Kubernetes has no name that needs an escape, and simdjson
    /// compares keys in the same way.
    static std::string_view key_of(simdjson::ondemand::field &field);

    /// False at a null, or after telling what is wrong.
    bool is(simdjson::ondemand::json_type wanted, std::string_view what);
    bool open_object();
    bool take(simdjson::error_code error);
    void refuse_type(std::string_view what);

    Value value_;
    Faults &faults_;
    const Field *parent_ = nullptr;
    std::string_view key_;
    size_t index_ = no_index;
    Object object_; // meaningful once each_field was called
    bool is_open_ = false;
};

} // namespace thruway
