#include "libmigrate/home/process_end.h"

#include <utility>

namespace migrate {
namespace {

void add_core(nlohmann::json& result, const IncompleteCore& core) {
  if (core.lacks_pages != 0) {
    result["core_lacks_pages"] = core.lacks_pages;
    result["core_file"] = core.file;
  }
}

}  // namespace

ProcessEnd ProcessEnd::from(const wire::RelayExited& exited) {
  return {exited.wait_status(),
          exited.lost(),
          {exited.core_lacks_pages(), exited.core_file()},
          exited.keep_streams()};
}

void add_end(nlohmann::json& result, const ProcessEnd& end) {
  if (!end.lost.empty()) {
    result["lost"] = end.lost;
  }
  add_core(result, end.core);
}

void tell_end(EventSink& client, nlohmann::json result, const ProcessEnd& end) {
  if (!client.open()) {
    return;
  }
  result["state"] = "exited";
  result["exit_status"] = end.wait_status;
  add_core(result, end.core);
  if (!end.lost.empty()) {
    result["error"] = {{"code", "state"}, {"message", "the process was lost: " + end.lost}};
  }
  client.finish(end.lost.empty() ? MIGRATE_DONE : MIGRATE_LOST, std::move(result));
}

}  // namespace migrate
