// SPDX-License-Identifier: Apache-2.0
// libFuzzer's view of the programs.
#include "tests/fuzz/node.h"
#include "tests/fuzz/oracle.h"

#include <cstdio>
#include <cstdlib>
#include <random>

using namespace thruway::fuzz;

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

int LLVMFuzzerInitialize(int *, char ***)
{
    node_setup();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (const std::string wrong = judge({data, size}); !wrong.empty()) {
        std::fprintf(stderr, "%s\n", wrong.c_str());
        std::abort();
    }
    return 0;
}

/// Half of what comes of a mutation is mended, so that it gets further than to the first check of a length.
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, max_size);
    std::minstd_rand random(seed);
    for (const Step &step : steps_of({data, size}))
        if (random() % 2 == 0)
            repair({data + (step.bytes.data() - data), step.bytes.size()});
    return size;
}
}
// NOLINTEND(readability-identifier-naming)
