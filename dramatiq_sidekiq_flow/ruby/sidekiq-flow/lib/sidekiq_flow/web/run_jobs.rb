# frozen_string_literal: true

module SidekiqFlow::Web
  # The jobs of a run, and where they are: looked for in all places of jobs, by the
  # server, up to a limit.
  class RunJobs
    # Limits of one search: jobs that are found, jobs that are looked at, and seconds.
    MOST_FOUND = 500
    MOST_READ = 50_000
    MOST_SECONDS = 0.4

    # Of one call (find_jobs.lua): elements, bytes, elements that are read at once.
    CALL = [1000, 256 * 1024, 100].freeze

    # The state of a job by the place where it was found.
    STATES = {
      "queue" => "queued", "arrived" => "queued", "fanout" => "queued", "flight" => "running",
      "retry" => "retry", "dead" => "dead", "schedule" => "scheduled", "parked" => "parked"
    }.freeze

    # The option of a step that waits for a signal.
    WAITS = "swf_waits_until"

    Place = Struct.new(:kind, :key, :name)

    # A job. +due+, +since+ and +ended+ in epoch seconds, nil if they are not known.
    Job = Struct.new(:number, :state, :jid, :name, :queue, :due, :since, :ended, :worker, :error,
      keyword_init: true)

    # Number of jobs that were looked at.
    attr_reader :read

    def initialize(id)
      @id = id
      @found = {}
      @read = 0
      @stopped = false
      at_work
      search
    end

    def jobs
      @found.values
    end

    # Whether the search was stopped before its end.
    def stopped?
      @stopped
    end

    # Whether a job belongs to a run.
    def self.of?(item, id)
      item.is_a?(Hash) && [item["workflow_run_id"], item["sideline_run_id"]].include?(id)
    end

    private

    # What threads work on, as their processes said at their last beat.
    def at_work
      Sidekiq::WorkSet.new.each do |process, _thread, work|
        item = work.job.item
        add(item, "running", worker: process, since: work.run_at.to_f) if self.class.of?(item, @id)
      rescue JSON::ParserError, TypeError
        next # not a job
      end
    end

    def search
      ends = now + MOST_SECONDS
      Sidekiq.redis do |conn|
        sized(conn).each do |place|
          cursor = "0"
          until cursor.empty?
            return @stopped = true if @found.size >= MOST_FOUND || @read >= MOST_READ || now > ends

            cursor = search_part(conn, place, cursor)
          end
        end
      end
    end

    # The places that are not empty, the smallest first.
    def sized(conn)
      places = places(conn)
      sizes = conn.pipelined do |pipeline|
        places.each { |place| pipeline.call(size_command(place), place.key) }
      end
      places.zip(sizes).reject { |_, size| size.zero? }.sort_by(&:last).map(&:first)
    end

    # A job goes from a queue into flight: a queue comes first, unless it is larger.
    def places(conn)
      queues, members, fanouts = conn.pipelined do |pipeline|
        pipeline.call("SMEMBERS", "queues")
        pipeline.call("ZRANGE", "swf:workers", 0, -1)
        pipeline.call("ZRANGE", "swf:fanouts", 0, -1)
      end
      [*queues.map { |name| Place.new("queue", "queue:#{name}", name) },
        *queues.map { |name| Place.new("arrived", "swf:arrived:#{name}", name) },
        *members.map { |member| Place.new("flight", "swf:inflight:#{member}", member) },
        *fanouts.map { |id| Place.new("fanout", "swf:fanout:#{id}", id) },
        Place.new("parked", "swf:parked:#{@id}", @id),
        *%w[retry dead schedule].map { |name| Place.new(name, name, name) }]
    end

    def size_command(place)
      case place.kind
      when "flight" then "HLEN"
      when "retry", "dead", "schedule" then "ZCARD"
      else "LLEN"
      end
    end

    # Returns the cursor of the next part: "" at the end.
    def search_part(conn, place, cursor)
      reply = SidekiqFlow::Companion::Scripts.run(conn, "find_jobs", [place.key], [needle, cursor, *CALL])
      return "" if reply.first == "TYPE"

      cursor, elements, _bytes, *found = reply
      @read += elements
      found.each_slice(2) { |payload, label| found_job(place, payload, label) }
      cursor
    end

    # The id with its last quote: payloads of other runs hold it by chance only.
    def needle
      "#{JSON.generate(@id)[1..-2]}\""
    end

    def found_job(place, payload, label)
      due = label.to_f unless place.kind == "flight" || label.empty?
      # A staged job that is due later: "s", its time, a space, and the payload.
      if place.kind == "fanout" && payload.start_with?("s")
        due, payload = payload[1..-1].split(" ", 2)
        due = due.to_f
      end
      # A letter and a place, a NUL, and the payload.
      payload = payload.split("\0", 2).last if place.kind == "parked"
      item = JSON.parse(payload)
      add_found(place, item, label, due) if self.class.of?(item, @id)
    rescue JSON::ParserError
      nil # not a job
    end

    def add_found(place, item, label, due)
      case place.kind
      when "flight" then add_in_flight(item, place, label)
      when "dead" then add(item, "dead", ended: due)
      when "schedule" then add(item, item.key?(WAITS) ? "signal" : "scheduled", due: due)
      else add(item, place.kind == "fanout" && due ? "scheduled" : STATES.fetch(place.kind), due: due)
      end
    end

    # A job that was fetched ahead waits: its receipt ends with a mark.
    def add_in_flight(item, place, receipt)
      return add(item, "queued") if receipt.end_with?("?", "!")

      since = @found[item["jid"]]&.since
      add(item, "running", worker: place.name.split(":", 4).first(3).join(":"), since: since)
    end

    # A job that was seen at work may be elsewhere by now: the later find counts.
    def add(item, state, **more)
      number = item["swf_step"]
      error = error(item) if %w[retry dead].include?(state)
      @found[item["jid"]] = Job.new(number: number.is_a?(Integer) ? number : nil, state: state,
        jid: RunRecord.text(item["jid"]), name: RunRecord.text(item["wrapped"] || item["class"]),
        queue: RunRecord.text(item["queue"]), error: error, **more)
    end

    def error(item)
      item.values_at("error_class", "error_message").map { |part| RunRecord.text(part) }.reject(&:empty?).join(": ")
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end
  end
end
