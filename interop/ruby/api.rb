# frozen_string_literal: true

# What a person does in Sidekiq's Web UI, over the same API. Each command
# prints one JSON object and exits 1 when there was nothing to do.
#
#   ruby api.rb retry-dead JID    bring a dead job back to its queue
#   ruby api.rb retry JID         run a job of the retry set now
#   ruby api.rb kill JID          retry set -> dead set
#   ruby api.rb hurry SET         make every job of schedule or retry due
#   ruby api.rb poll              once, what the scheduler's poller does
#   ruby api.rb push              a plain job, its JSON on standard input
#   ruby api.rb quiet|stop        signal every process on the Busy page
#   ruby api.rb dump              queues, sets, processes, running jobs, stats

require "json"
require "sidekiq/api"
require "sidekiq/scheduled"
require_relative "jobs"

module Interop
  module Api
    SETS = {"schedule" => Sidekiq::ScheduledSet, "retry" => Sidekiq::RetrySet, "dead" => Sidekiq::DeadSet}.freeze

    module_function

    def on_job(set_name, jid)
      entry = SETS.fetch(set_name).new.find_job(jid)
      return {"found" => false} if entry.nil?

      yield entry
      {"found" => true, "jid" => jid}
    end

    def retry_dead(jid) = on_job("dead", jid, &:retry)

    def retry_retry(jid) = on_job("retry", jid, &:retry)

    def kill(jid) = on_job("retry", jid, &:kill)

    # Scores only: the payloads stay, byte for byte, what another language wrote.
    def hurry(set_name)
      raise ArgumentError, "schedule or retry, not #{set_name}" unless %w[schedule retry].include?(set_name)

      moved = Sidekiq.redis do |conn|
        members = conn.call("ZRANGE", set_name, 0, -1)
        members.each_with_index { |member, index| conn.call("ZADD", set_name, "XX", index + 1, member) }
        members.size
      end
      {"found" => moved > 0, "moved" => moved}
    end

    def poll
      Sidekiq::Scheduled::Enq.new(Sidekiq.default_configuration).enqueue_jobs
      {"found" => true}
    end

    # With the class itself where there is one, for the sake of its options.
    def push(item)
      item["class"] = Object.const_get(item["class"]) if Interop.defined_class?(item["class"])
      {"found" => true, "jid" => Sidekiq::Client.push(item)}
    end

    def signal(command)
      processes = Sidekiq::ProcessSet.new(false).to_a
      processes.each(&command)
      {"found" => !processes.empty?, "processes" => processes.map(&:identity)}
    end

    def dump
      stats = Sidekiq::Stats.new
      {
        "queues" => Sidekiq::Queue.all.to_h { |queue| [queue.name, queue.map(&:value)] },
        **SETS.transform_values { |set| set.new.map { |entry| [entry.value, entry.score] } },
        "processes" => Sidekiq::ProcessSet.new(false).map { |process| process_record(process) },
        "work" => Sidekiq::WorkSet.new.map { |identity, tid, work| {"process" => identity, "tid" => tid, "queue" => work.queue, "payload" => work.payload} },
        "stats" => {"processed" => stats.processed, "failed" => stats.failed, "enqueued" => stats.enqueued}
      }
    end

    def process_record(process)
      %w[identity hostname pid tag concurrency queues busy beat quiet labels rss].to_h { |key| [key, process[key]] }
    end
  end
end

api = Interop::Api
command, argument = ARGV
answer =
  case command
  when "retry-dead" then api.retry_dead(argument)
  when "retry" then api.retry_retry(argument)
  when "kill" then api.kill(argument)
  when "hurry" then api.hurry(argument)
  when "poll" then api.poll
  when "push" then api.push(JSON.parse($stdin.read))
  when "quiet" then api.signal(:quiet!)
  when "stop" then api.signal(:stop!)
  when "dump" then api.dump
  else abort "unknown command #{command.inspect}; the head of #{__FILE__} lists them"
  end
puts JSON.generate(answer)
exit(answer.fetch("found", true) ? 0 : 1)
