#include "libmigrate/host/worker_over.h"

#include "libmigrate/host/letter_request.h"

namespace migrate {

void WorkerOver::on_letter(Letter letter) {
  refuse_letter(std::move(letter), exit_code_, reason_);
}

}  // namespace migrate
