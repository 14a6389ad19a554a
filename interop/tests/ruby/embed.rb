# frozen_string_literal: true

# Sidekiq in a process of another kind (a web server), started and stopped.
# Prints the members of swf:workers: while it runs, after its end, and when
# another beat would have come. The companion is loaded by setup.rb.

require_relative "/interop/ruby/setup"
require "sidekiq/embedded"

sidekiq = Sidekiq.configure_embed do |config|
  config.logger.level = Logger::WARN
  config.logger = Sidekiq::Logger.new($stderr)
  config.queues = %w[ruby other]
  config.concurrency = 2
  config[:poll_interval_average] = 1
  config.server_middleware { |chain| chain.add Sidekiq::Workflow::Middleware }
  SidekiqFlow::Companion.configure(config, heartbeat_timeout: 1)
end
members = -> { Sidekiq.redis { |conn| conn.call("ZRANGE", "swf:workers", 0, -1) } }

sidekiq.run
deadline = Time.now + 20
sleep(0.05) until members.call.size == 2 || Time.now > deadline
running = members.call
sidekiq.stop
stopped = members.call
sleep(1)
puts JSON.generate([running, stopped, members.call].map(&:size))
