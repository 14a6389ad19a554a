# frozen_string_literal: true

module SidekiqFlow::Web
  # What the page of a run shows.
  class RunPage
    # Lines of the tree, and dead steps without a line of their own, that are shown.
    MOST_LINES = 1000
    MOST_DEAD = 20

    MARKS = {
      "done" => "+", "inferred" => "+", "running" => ">", "queued" => "-", "scheduled" => "~", "retry" => "~",
      "signal" => "~", "parked" => "~", "dead" => "!", "open" => ".", "skipped" => "x"
    }.freeze

    # A line of the table. +number+, +state+ and what follows are nil for a line that is
    # not of a step; +counts+ has the states of repeated steps; +time+ in epoch seconds.
    Row = Struct.new(:depth, :name, :mark, :number, :queue, :ruby, :args, :state, :counts, :total, :time, :took,
      :worker, :attempts, :error, keyword_init: true)

    attr_reader :record, :rows, :hidden_dead

    # The page of a run; nil if it has no record.
    def self.find(id)
      record = RunRecord.find(id)
      return unless record

      jobs = RunJobs.new(id) if record.open?
      # What was done meanwhile has a mark now.
      record = RunRecord.find(id) || record if jobs
      new(record, jobs)
    end

    # +jobs+: the search for the jobs of the run; nil if it has ended.
    def initialize(record, jobs)
      @record = record
      @search = jobs
      @jobs = jobs ? jobs.jobs : []
      @tree = RunTree.parse(record.tree, record.added)
      @states = StepStates.new(@tree, record, @jobs) if @tree
      @by_number = @jobs.to_h { |job| [job.number, job] }
      @rows = @tree ? tree_rows : job_rows
      @hidden_dead = [*(dead_numbers - @rows.map(&:number)), *(dead_jids - @jobs.map(&:jid))]
    end

    # Whether the tree of the run is known.
    def tree?
      !@tree.nil?
    end

    # The recorded state; a run whose dead steps were all retried is running.
    def state
      none_dead = @states ? !counts.key?("dead") : dead.zero?
      (record.state == "failed" && none_dead) ? "running" : record.state
    end

    def total
      @tree ? @tree.steps : record.total
    end

    def done
      @states ? counts.values_at("done", "inferred").compact.sum : record.done
    end

    # Number of steps that are dead.
    def dead
      dead_numbers.size + dead_jids.size
    end

    # Number of jobs that were looked at, if the search was stopped; else nil.
    def looked_at
      @search.read if @search&.stopped?
    end

    # Number of lines that are not shown.
    def lines_left
      @lines_left || 0
    end

    def inferred?
      @states ? counts.key?("inferred") : false
    end

    # The Failures of dead steps that have no line of their own.
    def hidden_failures
      hidden_dead.first(MOST_DEAD).map { |step| record.failure(step) }.compact
    end

    private

    def counts
      @counts ||= @states.counts
    end

    def dead_numbers
      @dead_numbers ||= record.failed_numbers.select { |number| @states.nil? || @states[number] == "dead" }
    end

    # Of dead steps without numbers. Plain Ruby, which leaves no trace, may have run one
    # again that no worker recorded.
    def dead_jids
      @dead_jids ||= begin
        states = @jobs.to_h { |job| [job.jid, job.state] }
        record.failed_jids.select { |jid| states.fetch(jid, record.inferred?(jid) ? nil : "dead") == "dead" }
      end
    end

    def tree_rows
      lines = @tree.each_line.first(MOST_LINES)
      @lines_left = @tree.each_line.count - MOST_LINES if lines.size == MOST_LINES
      lines.map { |line| row(line) }
    end

    def row(line)
      case line.node.kind
      when :step then step_row(line)
      when :times then repeated_row(line)
      when :replacement then Row.new(depth: line.depth, name: "in place of step #{line.node.value["step"]}")
      when :delay then Row.new(depth: line.depth, name: "after #{Text.duration(line.node.delay)}")
      else Row.new(depth: line.depth, name: branch_name(line.node))
      end
    end

    def branch_name(node)
      return "#{node.kind} (empty)" if node.children.empty?

      node.need ? "#{node.kind}, #{node.need} of #{node.members} needed" : node.kind.to_s
    end

    def repeated_row(line)
      node = line.node
      state = @states.urgent(line.number, node.steps)
      step = node.child if node.child.step?
      Row.new(depth: line.depth, number: line.number, name: "#{Text.label(node.child)} x #{Text.number(node.times)}",
        queue: step&.queue, ruby: step&.ruby?, state: state, mark: MARKS.fetch(state),
        counts: @states.counts(line.number, node.steps), total: node.steps)
    end

    def step_row(line)
      state = @states[line.number]
      Row.new(depth: line.depth, number: line.number, name: line.node.name, queue: line.node.queue,
        ruby: line.node.ruby?, args: line.node.args, state: state, mark: MARKS.fetch(state),
        **facts(line.number, state))
    end

    # When and where a step runs or ran, and why it is dead.
    def facts(number, state)
      case state
      when "done" then times(number)
      when "inferred", "open", "skipped" then {}
      else job_facts(@by_number[number], number)
      end
    end

    def times(number)
      times = record.times(number)
      return {} unless times

      took = times.ended - times.started if times.started && times.ended
      {time: times.started, took: took, worker: times.worker, attempts: times.attempts + 1}
    end

    def job_facts(job, number)
      failure = record.failure(number)
      time = job&.due || job&.since || job&.ended || failure&.at
      {time: time, worker: job&.worker, error: job&.error || failure&.error}
    end

    # The rows of a run whose tree is not known: the jobs that were found, and dead steps.
    def job_rows
      rows = @jobs.map do |job|
        Row.new(depth: 0, number: job.number, name: job.name, queue: job.queue, state: job.state,
          mark: MARKS.fetch(job.state), **job_facts(job, job.number))
      end
      rows.sort_by { |row| row.number || Float::INFINITY }
    end
  end
end
