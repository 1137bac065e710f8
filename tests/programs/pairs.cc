// A process with random attributes and open objects, which shows itself whenever it is asked to.
//   pairs --list                       GROUP NAME seldom|often, one a line
//   pairs STOP_FILE SECONDS STEP:SEED...
// takes the steps in their order, prints what it cannot do, its view as number 0 and "ready"; then
// each time that there is the file STOP_FILE.N the view N and "shown N"; and ends as all programs
// do.
#include "tests/programs/pairs.h"

#include <sys/resource.h>

#include <vector>

namespace pairs {
namespace {

struct Group {
  const char* name;
  std::span<const Step> (*steps)();
};

constexpr Group kStepGroups[] = {
    {"file", file_steps},           {"object", object_steps}, {"mapping", mapping_steps},
    {"attribute", attribute_steps}, {"last", last_steps},
};

struct Undo {
  void (*call)(int number);
  int number;
};

std::vector<Undo> undos;
int paths = 0;

const Step* find_step(const std::string& name) {
  for (const Group& group : kStepGroups) {
    for (const Step& step : group.steps()) {
      if (name == step.name) {
        return &step;
      }
    }
  }
  return nullptr;
}

int list() {
  for (const Group& group : kStepGroups) {
    for (const Step& step : group.steps()) {
      std::printf("%s %s %s\n", group.name, step.name, step.seldom ? "seldom" : "often");
    }
  }
  return 0;
}

bool take_step(const std::string& word) {
  const std::size_t colon = std::min(word.find(':'), word.size() - 1);
  const std::string name = word.substr(0, colon);
  const Step* const step = find_step(name);
  if (step == nullptr) {
    return false;
  }
  Random random(std::strtoull(word.c_str() + colon + 1, nullptr, 10));
  errno = 0;
  if (!step->make(random)) {
    check::say(("cannot " + name + ": " + std::strerror(errno) + "\n").c_str());
  }
  return true;
}

void show_when_asked() {
  int number = 1;
  std::string asked = check::stop_file + "." + std::to_string(number);
  while (!check::stopping()) {
    if (::access(asked.c_str(), F_OK) == 0) {
      show(number);
      check::say(("shown " + std::to_string(number) + "\n").c_str());
      asked = check::stop_file + "." + std::to_string(++number);
    }
    check::sleep_ns(5 * check::kMillisecond);
  }
}

}  // namespace

void at_end(void (*undo)(int number), int number) {
  undos.push_back({undo, number});
}

std::string new_path(const char* name) {
  return check::work_path((std::to_string(paths++) + name).c_str());
}

}  // namespace pairs

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    return pairs::list();
  }
  if (argc < 3) {
    std::fprintf(stderr, "usage: pairs --list | STOP_FILE SECONDS STEP:SEED...\n");
    return 2;
  }
  check::stop_file = argv[1];
  check::deadline_ns = check::now_ns() + std::atoll(argv[2]) * check::kSecond;
  for (int i = 3; i < argc; ++i) {
    if (!pairs::take_step(argv[i])) {
      std::fprintf(stderr, "pairs: no step '%s'\n", argv[i]);
      return 2;
    }
  }
  pairs::show(0);
  check::ready();
  pairs::show_when_asked();
  for (const auto& [undo, number] : pairs::undos) {
    undo(number);
  }
  check::say("ok\n");
  return check::kSurvived;
}
