#pragma once

// The face of the architecture that libmigrate is built for: registers, the script interpreter and
// the parking loop, system calls that not every architecture has, what a processor can do. CMake
// chooses the folder by CMAKE_SYSTEM_PROCESSOR; only what is in it may be included by its own name.
#include MIGRATE_ARCH_HEADER
