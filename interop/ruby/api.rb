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
#   ruby api.rb delete SET JID    take a job out of a set
#   ruby api.rb quiet|stop        signal every process on the Busy page
#   ruby api.rb signal ID WHAT    quiet!, stop! or dump_threads for one of them
#   ruby api.rb metrics           what the Metrics pages show of the last hour
#   ruby api.rb dump              queues, sets, processes, running jobs, stats

require "json"
require "sidekiq/api"
require "sidekiq/metrics/query"
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

    def delete(set_name, jid) = on_job(set_name, jid, &:delete)

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

    def signal_one(identity, command)
      process = Sidekiq::ProcessSet[identity]
      return {"found" => false} if process.nil?

      process.public_send(command)
      {"found" => true}
    end

    # Per class: what the list shows, what its own page adds up, and how many times its histograms hold.
    def metrics
      query = Sidekiq::Metrics::Query.new
      listed = query.top_jobs.job_results.transform_values(&:totals)
      {
        "listed" => listed,
        "alone" => listed.keys.to_h { |name| [name, query.for_job(name).job_results[name].totals] },
        "timed" => listed.keys.to_h { |name| [name, query.for_job(name).job_results[name].hist.values.flatten.sum] }
      }
    end

    def dump
      stats = Sidekiq::Stats.new
      {
        "queues" => Sidekiq::Queue.all.to_h { |queue| [queue.name, queue.map(&:value)] },
        **SETS.transform_values { |set| set.new.map { |entry| [entry.value, entry.score] } },
        "processes" => Sidekiq::ProcessSet.new(false).map { |process| process_record(process) },
        "work" => Sidekiq::WorkSet.new.map { |identity, tid, work| {"process" => identity, "tid" => tid, "queue" => work.queue, "payload" => work.payload, "class" => work.job.display_class, "run_at" => work.run_at.to_f} },
        "stats" => {
          "processed" => stats.processed, "failed" => stats.failed, "enqueued" => stats.enqueued,
          "processes" => stats.processes_size, "busy" => stats.workers_size, "retry" => stats.retry_size,
          "scheduled" => stats.scheduled_size, "dead" => stats.dead_size,
          "today" => Sidekiq::Stats::History.new(2).processed.values.sum, "latency" => stats.default_queue_latency
        }
      }
    end

    def process_record(process)
      %w[identity hostname pid tag concurrency queues weights busy beat quiet labels rss rtt_us version embedded started_at].to_h { |key| [key, process[key]] }
    end
  end
end

api = Interop::Api
command, argument, second = ARGV
answer =
  case command
  when "retry-dead" then api.retry_dead(argument)
  when "retry" then api.retry_retry(argument)
  when "kill" then api.kill(argument)
  when "delete" then api.delete(argument, second)
  when "signal" then api.signal_one(argument, second)
  when "metrics" then api.metrics
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
