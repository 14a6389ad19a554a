# frozen_string_literal: true

# The worker process of Sidekiq with the gem's middleware. It obeys the same orders
# as benchmarks/worker.py.
#
#   ruby worker.rb CONCURRENCY QUEUE

require_relative "step"

# Outside of all other middleware: a job counts when the whole chain has returned.
# Sidekiq's own fetch acknowledges nothing after that.
class Acknowledged
  include Sidekiq::ServerMiddleware

  def call(_job_instance, _job, _queue)
    result = yield
    Bench::METER.ack
    result
  end
end

instance = Sidekiq.configure_embed do |config|
  config.logger = Sidekiq::Logger.new($stderr, level: Logger::WARN)
  config.queues = [ARGV.fetch(1)]
  config.concurrency = Integer(ARGV.fetch(0))
  config.server_middleware do |chain|
    chain.add Sidekiq::Workflow::Middleware
    chain.prepend Acknowledged
  end
end

Bench.serve do |order|
  case order.fetch("do")
  when "expect" then Bench::METER.expect(order) && {}
  when "start" then instance.run && {}
  when "count" then {"acked" => Bench::METER.acked}
  when "memory" then Bench.memory
  when "wait"
    Bench::METER.wait(order["seconds"])
    Bench::METER.report
  else raise ArgumentError, order["do"]
  end
end
