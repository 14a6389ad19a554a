# frozen_string_literal: true

module SidekiqFlow::Companion
  # Moves due jobs from `schedule` and `retry` to their queues, each in one step:
  # Sidekiq's own takes a job out first and pushes it second. What cannot be read
  # goes to `dead`.
  #
  # Client middleware does not run again here, as it does in Sidekiq's own: two
  # pollers may look at the same job, and only one of them will move it.
  class Promoter
    include Sidekiq::Component
    include Sidekiq::JobUtil

    BATCH = 100

    # +error+ where it goes to `dead`: then it has no queue.
    Promotion = Struct.new(:member, :queue, :payload, :error)

    def initialize(config)
      @config = config
      @done = false
      @complained = {}
    end

    def enqueue_jobs(sets = %w[retry schedule])
      sets.each do |set|
        enqueue_due(set)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        return Trouble.say(logger, error) if Trouble.passes?(error)

        # A set of another type is in no other set's way.
        complain(set, "#{set} cannot be read: #{error.message}")
      end
    end

    def terminate
      @done = true
    end

    private

    def enqueue_due(set)
      stuck = 0
      until @done
        members = redis { |conn| conn.call("ZRANGE", set, "-inf", Time.now.to_f.to_s, "BYSCORE", "LIMIT", stuck, BATCH) }
        stuck += promote(set, members.map { |member| promotion(member) }) unless members.empty?
        break if members.size < BATCH
      end
      complain(set, "#{stuck} due jobs of #{set} can go nowhere: `dead` or `queues` is of another type. Remove it") if stuck > 0
    end

    # Once a minute for each set.
    def complain(set, text)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @complained[set] && now - @complained[set] < 60

      @complained[set] = now
      logger.error(text)
    end

    # How many stay where they are.
    def promote(set, promotions)
      misplaced, stuck = move(set, promotions)
      misplaced.map! { |found| refused(found) }
      stuck += misplaced.empty? ? [] : move(set, misplaced).flatten(1)
      bad = [*promotions.select(&:error), *misplaced] - stuck
      unless bad.empty?
        logger.error("#{bad.size} due jobs of #{set} cannot go to a queue and are now in 'dead': " \
          "#{bad.first.error.message}: #{bad.first.member.inspect[0, 200]}")
      end
      stuck.size
    end

    def refused(found)
      error = WrongType.new("The Redis key queue:#{found.queue} is not a list, so the job cannot go there.")
      Promotion.new(found.member, "", SidekiqFlow::Companion.corpse(found.payload, error, found.queue), error)
    end

    # Those whose queue is of another type, and those that `dead`, `queues` or the
    # set itself, of another type, keeps where they are.
    def move(set, promotions)
      reply = redis do |conn|
        Scripts.run(conn, "promote", [set, "dead", "queues", *promotions.map { |found| "queue:#{found.queue}" }],
          [Time.now.to_f.to_s, *promotions.flat_map { |found| [found.member, found.queue, found.payload] }])
      end
      reply[1, 2].map { |numbers| numbers.map { |number| promotions[number - 1] } }
    end

    def promotion(member)
      raw = SidekiqFlow::Companion.unwrapped(member)
      error = SidekiqFlow::Companion.fault(raw)
      raise error if error

      item = SidekiqFlow::Companion.parse(raw)
      item.delete("at")
      item.delete("queue") if item["queue"] == "" || item["queue"].nil?
      raise InvalidPayload, "The job's queue is not a name: #{item["queue"].inspect[0, 200]}" unless !item.key?("queue") || item["queue"].is_a?(String)

      item["jid"] = SidekiqFlow::Companion.fingerprint(raw) unless item["jid"].is_a?(String) && !item["jid"].empty?
      item = normalize_item(item)
      item["enqueued_at"] = SidekiqFlow::Companion.stamp
      Promotion.new(member, item["queue"], Sidekiq.dump_json(item))
    rescue => error
      error = InvalidPayload.new(error.message) unless error.is_a?(InvalidPayload)
      Promotion.new(member, "", SidekiqFlow::Companion.corpse(member, error, "default"), error)
    end
  end
end
