#pragma once

// What every architecture's folder provides, as the rest of libmigrate sees it by arch/arch.h.
#include "libmigrate/arch/x86_64/breakpoint.h"
#include "libmigrate/arch/x86_64/calls.h"
#include "libmigrate/arch/x86_64/cpu_facts.h"
#include "libmigrate/arch/x86_64/interpreter.h"
#include "libmigrate/arch/x86_64/registers.h"
#include "libmigrate/arch/x86_64/settings.h"
