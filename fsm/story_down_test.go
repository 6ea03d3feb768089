package fsm

// The models that the stories of going down begin with: want down, unless the
// name says up.
const (
	closingApp   = "down=shutdown@applicationUp build=1:start/succeeded agent=a@1:ready target=a@1 conn app appClosing everUp attempt=1"
	unstarting   = "down=shutdown@tailnetUp build=1:start/succeeded agent=a@1:ready target=a@1 conn appStarting attempt=1"
	unstartingUp = "build=1:start/succeeded agent=a@1:ready target=a@1 conn appStarting attempt=1"
	connLostUp   = "build=1:start/succeeded agent=a@1:ready target=a@1 appStarting attempt=1"
	undialling   = "down=shutdown@establishTailnet build=1:start/succeeded agent=a@1:ready target=a@1 dialing dialCanceled attempt=1"
	undiallingUp = "build=2:start/running agent=a@1:ready target=a@1 dialing dialCanceled attempt=1"
	closingConn  = "down=shutdown@applicationUp build=1:start/succeeded agent=a@1:ready target=a@1 conn everUp attempt=1"
	detachedUp   = "build=2:start/running agent=a@1:ready target=a@1 conn app everUp attempt=1"
)

var downStories = []story{
	// shutdownApplication
	{"the application is closed, now the tailnet", ShutdownApplication, closingApp, "app=down", ShutdownTailnet, "cancelTimers closeConn armDeadline=shutdownTailnet", "-app -appClosing"},
	{"the application is closed, and there is no tailnet", ShutdownApplication, "down=shutdown@waitForAgent build=1:start/succeeded app appClosing everUp", "app=down", Exit, "cancelTimers finish", "-app -appClosing"},
	{"the tailnet ends by itself meanwhile", ShutdownApplication, closingApp, "tailnet=down,lived=1ns", ShutdownApplication, "", "-conn"},
	{"a start that was cancelled has worked all the same", ShutdownApplication, unstarting, "app=up", ShutdownApplication, "closeApp", "app appClosing -appStarting"},
	{"a start that was cancelled ends", ShutdownApplication, unstarting, "app=down,err=app", ShutdownTailnet, "cancelTimers closeConn armDeadline=shutdownTailnet", "-appStarting"},
	{"the application of a replaced workspace is kept, its connection is not", ShutdownApplication, "build=2:start/running agent=a@1:ready target=a@1 conn appStarting attempt=1", "app=up", ShutdownTailnet, "cancelTimers detach closeConn armDeadline=shutdownTailnet", "app -appStarting"},
	{"an application that does not close is given up", ShutdownApplication, closingApp, "deadline", Exit, "cancelTimers abort finish", ""},
	{"a start that does not answer is given up", ShutdownApplication, unstartingUp, "deadline", Exit, "cancelTimers abort finish", "down=timeout@shutdownApplication"},
	{"an abort asks nobody", ShutdownApplication, closingApp, "abort", Exit, "cancelTimers abort finish", ""},
	{"the first cause stands", ShutdownApplication, closingApp, "build=2:delete/running", ShutdownApplication, "", "build=2:delete/running"},
	{"a shutdown is heard", ShutdownApplication, unstartingUp, "shutdown", ShutdownApplication, "", "down=shutdown@shutdownApplication"},
	{"a deletion is heard", ShutdownApplication, unstartingUp, "build=2:delete/running", ShutdownApplication, "", "down=deleted@shutdownApplication build=2:delete/running"},
	{"a stop is heard", ShutdownApplication, unstartingUp, "build=2:stop/running", ShutdownApplication, "", "down=stopped@shutdownApplication build=2:stop/running"},
	{"a stop is ridden out", ShutdownApplication, "onStop=wait; " + unstartingUp, "build=2:stop/succeeded", ShutdownApplication, "", "build=2:stop/succeeded"},
	{"the time-out of the way up is heard", ShutdownApplication, unstartingUp, "timeout", ShutdownApplication, "", "down=timeout@shutdownApplication"},
	{"a connection that nobody dialled is closed", ShutdownApplication, closingApp, "tailnet=up", ShutdownApplication, "closeHanded", ""},
	{"a new build is for later", ShutdownApplication, unstartingUp, "build=2:start/running", ShutdownApplication, "", "build=2:start/running"},
	{"a failed build is for later", ShutdownApplication, unstartingUp, "build=2:start/failed", ShutdownApplication, "", "build=2:start/failed"},
	{"a new agent is for later", ShutdownApplication, unstartingUp, "agent=b@1:ready", ShutdownApplication, "", "agent=b@1:ready"},
	{"a lost watch is for people", ShutdownApplication, closingApp, "watch=lost,err=watch", ShutdownApplication, "report", "watch=lost watchErr=watch"},
	// shutdownTailnet
	{"the tailnet is closed", ShutdownTailnet, closingConn, "tailnet=down,lived=1ns", Exit, "cancelTimers finish", "-conn"},
	{"the dial has heard of its end", ShutdownTailnet, undialling, "tailnet=down,err=dial", Exit, "cancelTimers finish", "-dialing -dialCanceled"},
	{"the dial has come up all the same", ShutdownTailnet, undialling, "tailnet=up", ShutdownTailnet, "closeConn", "conn -dialing -dialCanceled"},
	{"an application that waited is closed last", ShutdownTailnet, "down=shutdown@shutdownTailnet build=1:start/succeeded agent=a@1:ready target=a@1 dialing dialCanceled app everUp attempt=1", "tailnet=down,err=dial", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "appClosing -dialing -dialCanceled"},
	{"an application that dies ends it", ShutdownTailnet, detachedUp, "app=down,err=app", ShutdownTailnet, "", "down=app@shutdownTailnet:app -app"},
	{"the end of no application is unexpected", ShutdownTailnet, closingConn, "app=down", ShutdownTailnet, "", ""},
	{"an application that nobody started is closed", ShutdownTailnet, closingConn, "app=up", ShutdownTailnet, "closeHanded", ""},
	{"a tailnet that does not close is given up", ShutdownTailnet, closingConn, "deadline", Exit, "cancelTimers abort finish", ""},
	{"a dial that does not answer is given up", ShutdownTailnet, undiallingUp, "deadline", Exit, "cancelTimers abort finish", "down=timeout@shutdownTailnet"},
	{"an abort asks nobody", ShutdownTailnet, undiallingUp, "abort,err=owner", Exit, "cancelTimers abort finish", "down=aborted@shutdownTailnet:owner"},
	{"a shutdown is heard", ShutdownTailnet, undiallingUp, "shutdown", ShutdownTailnet, "", "down=shutdown@shutdownTailnet"},
	{"a deletion is heard", ShutdownTailnet, undiallingUp, "build=3:delete/running", ShutdownTailnet, "", "down=deleted@shutdownTailnet build=3:delete/running"},
	{"a stop is heard", ShutdownTailnet, undiallingUp, "build=3:stop/succeeded", ShutdownTailnet, "", "down=stopped@shutdownTailnet build=3:stop/succeeded"},
	{"a stop is ridden out", ShutdownTailnet, "onStop=wait; " + detachedUp, "build=3:stop/running", ShutdownTailnet, "", "build=3:stop/running"},
	{"the time-out of the way up is heard", ShutdownTailnet, undiallingUp, "timeout", ShutdownTailnet, "", "down=timeout@shutdownTailnet"},
	{"which is over once it has been up", ShutdownTailnet, detachedUp, "timeout", ShutdownTailnet, "", ""},
	{"a new build is for later", ShutdownTailnet, undiallingUp, "build=2:start/succeeded", ShutdownTailnet, "", "build=2:start/succeeded"},
	{"a watch that tries again is for people", ShutdownTailnet, closingConn, "watch=retrying,err=watch", ShutdownTailnet, "report", "watch=retrying watchErr=watch"},
	{"an old timer means nothing", ShutdownTailnet, closingConn, "retryDue", ShutdownTailnet, "", ""},
	{"an answer that comes late is noted", ShutdownTailnet, "build=2:start/running agent=a@1:ready target=a@1 dialing dialCanceled starting attempt=1", "accepted=2", ShutdownTailnet, "", "-starting"},
}

// st gives the memory of a tunnel that is still wanted and whose dial was
// cancelled, with what the watch has told since.
func st(snapshot, more string) string {
	return snapshot + " target=a@1 dialing dialCanceled" + more + " attempt=1"
}

// sa is the same with an application start that was cancelled.
func sa(snapshot, more string) string {
	return snapshot + " target=a@1 appStarting" + more + " attempt=1"
}

// resumeStories: a tunnel that is still wanted goes on from the snapshot. All
// branches from shutdownTailnet, and each again from wherever it is used.
var resumeStories = []story{
	{"started and the agent is ready: dial again after a backoff", ShutdownTailnet, st("build=1:start/succeeded agent=b@1:ready", ""), "tailnet=down,err=dial", WaitForAgent, "cancelTimers armRetry#1 armDeadline=waitForAgent", "-dialing -dialCanceled"},
	{"started: wait for the agent", ShutdownTailnet, st("build=2:start/succeeded agent=a@1:ready", ""), "tailnet=down,err=dial", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "-dialing -dialCanceled"},
	{"started and the script has failed: leave when strict", ShutdownTailnet, "strict; " + st("build=1:start/succeeded agent=b@1:start_error", ""), "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=script@shutdownTailnet -dialing -dialCanceled"},
	{"started and the script has failed: the application is closed first", ShutdownTailnet, "strict; " + st("build=1:start/succeeded agent=b@1:start_error", " app everUp"), "tailnet=down,err=dial", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=script@shutdownTailnet appClosing -dialing -dialCanceled"},
	{"a start is under way: follow it", ShutdownTailnet, st("build=2:start/running agent=a@1:ready", ""), "tailnet=down,err=dial", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "-dialing -dialCanceled"},
	{"a stop is under way: wait for its end", ShutdownTailnet, "onStop=wait; " + st("build=2:stop/running agent=a@1:ready", ""), "tailnet=down,err=dial", WaitToStart, "cancelTimers armDeadline=waitToStart", "-dialing -dialCanceled"},
	{"stopped and our start is in flight: wait for it", ShutdownTailnet, "onStop=restart; " + st("build=2:stop/succeeded agent=a@1:ready", " starting"), "tailnet=down,err=dial", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "-dialing -dialCanceled"},
	{"stopped and we may start it", ShutdownTailnet, "onStop=restart; " + st("build=2:stop/succeeded agent=a@1:ready", " app everUp"), "tailnet=down,err=dial", WaitForWorkspaceStarted, "cancelTimers startWorkspace", "starting -dialing -dialCanceled"},
	{"stopped and we may not: wait for others", ShutdownTailnet, "onStop=wait; " + st("build=2:stop/succeeded agent=a@1:ready", " app everUp"), "tailnet=down,err=dial", WaitToStart, "cancelTimers", "-dialing -dialCanceled"},
	{"a start has failed: leave", ShutdownTailnet, st("build=2:start/failed agent=a@1:ready", ""), "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=failed@shutdownTailnet:BuildError(2) -dialing -dialCanceled"},
	{"a start was cancelled: leave", ShutdownTailnet, st("build=2:start/canceled agent=a@1:ready", ""), "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=failed@shutdownTailnet:BuildError(2) -dialing -dialCanceled"},
	{"a start has failed: the application is closed first", ShutdownTailnet, "onStop=wait; " + st("build=2:start/failed agent=a@1:ready", " app everUp"), "tailnet=down,err=dial", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=failed@shutdownTailnet:BuildError(2) appClosing -dialing -dialCanceled"},
	{"the watch is lost: leave, whatever the snapshot says", ShutdownTailnet, st("build=1:start/succeeded agent=b@1:ready watch=lost watchErr=watch", ""), "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=watch@shutdownTailnet:watch -dialing -dialCanceled"},
	{"a tunnel that was up waits for the agent without bound", ShutdownTailnet, "onStop=wait; " + st("build=2:start/succeeded agent=a@1:ready", " app everUp"), "tailnet=down,err=dial", WaitForAgent, "cancelTimers", "-dialing -dialCanceled"},

	{"started and the agent is ready: dial again after a backoff", EstablishTailnet, dialling, "tailnet=down,err=dial", WaitForAgent, "cancelTimers armRetry#1 armDeadline=waitForAgent", "dialErr=dial -dialing"},
	{"started and the agent is gone: wait for it", EstablishTailnet, "build=1:start/succeeded agent=a@1:ready/disconnected target=a@1 dialing attempt=1", "tailnet=down,err=dial", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "dialErr=dial -dialing"},
	{"a newer build has failed: leave", EstablishTailnet, "build=2:start/failed agent=a@1:ready target=a@1 dialing attempt=1", "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=failed@establishTailnet:BuildError(2) dialErr=dial -dialing"},
	{"the watch is lost: leave", EstablishTailnet, "build=1:start/succeeded agent=a@1:ready watch=lost watchErr=watch target=a@1 dialing attempt=1", "tailnet=down,err=dial", Exit, "cancelTimers finish", "down=watch@establishTailnet:watch dialErr=dial -dialing"},
	{"the watch is lost: the application is closed first", EstablishTailnet, "build=1:start/succeeded agent=a@1:ready watch=lost target=a@1 dialing app everUp attempt=1", "tailnet=down,err=dial", ShutdownApplication, "cancelTimers closeApp armDeadline=shutdownApplication", "down=watch@establishTailnet appClosing dialErr=dial -dialing"},

	{"a stop is under way: wait for its end", ApplicationUp, "onStop=wait; build=2:stop/running agent=a@1:ready target=a@1 conn app everUp attempt=1", "tailnet=down,lived=1ns", WaitToStart, "detach", "-conn"},
	{"the agent is gone: wait for it", ApplicationUp, "build=1:start/succeeded agent=a@1:off target=a@1 conn app everUp attempt=1", "tailnet=down,lived=1ns", WaitForAgent, "detach armDeadline=waitForAgent", "-conn"},
	{"a stop has failed: leave", ApplicationUp, "onStop=wait; build=2:stop/failed agent=a@1:ready target=a@1 conn app everUp attempt=1", "tailnet=down,lived=1ns", ShutdownApplication, "closeApp armDeadline=shutdownApplication", "down=failed@applicationUp:BuildError(2) appClosing -conn"},
	{"the watch is lost: leave", ApplicationUp, "build=1:start/succeeded agent=a@1:ready watch=lost watchErr=watch target=a@1 conn app everUp attempt=1", "tailnet=down,lived=1ns", ShutdownApplication, "closeApp armDeadline=shutdownApplication", "down=watch@applicationUp:watch appClosing -conn"},

	{"the start was cancelled and ends: dial again", ShutdownApplication, connLostUp, "app=down,err=app", WaitForAgent, "cancelTimers armRetry#1 armDeadline=waitForAgent", "-appStarting"},
	{"the start ends: wait for the agent", ShutdownApplication, sa("build=2:start/succeeded agent=a@1:ready", ""), "app=down", WaitForAgent, "cancelTimers armDeadline=waitForAgent", "-appStarting"},
	{"the start ends: follow the new build", ShutdownApplication, sa("build=2:start/running agent=a@1:ready", ""), "app=down", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "-appStarting"},
	{"the start ends: wait for the stop", ShutdownApplication, "onStop=wait; " + sa("build=2:stop/running agent=a@1:ready", ""), "app=down", WaitToStart, "cancelTimers armDeadline=waitToStart", "-appStarting"},
	{"the start ends: wait for our start", ShutdownApplication, "onStop=wait; " + sa("build=2:stop/succeeded agent=a@1:ready", " starting"), "app=down", WaitForWorkspaceStarted, "cancelTimers armDeadline=waitForWorkspaceStarted", "-appStarting"},
	{"the start ends: start the workspace", ShutdownApplication, "onStop=wait; " + sa("build=2:stop/succeeded agent=a@1:ready", ""), "app=down", WaitForWorkspaceStarted, "cancelTimers startWorkspace armDeadline=waitForWorkspaceStarted", "starting -appStarting"},
	{"the start ends and the build has failed: leave", ShutdownApplication, sa("build=2:start/failed agent=a@1:ready", ""), "app=down", Exit, "cancelTimers finish", "down=failed@shutdownApplication:BuildError(2) -appStarting"},
	{"the start ends and the script has failed: leave when strict", ShutdownApplication, "strict; " + sa("build=1:start/succeeded agent=b@1:start_error", ""), "app=down", Exit, "cancelTimers finish", "down=script@shutdownApplication -appStarting"},
	{"the start ends and the watch is lost: leave", ShutdownApplication, sa("build=1:start/succeeded agent=a@1:ready watch=lost watchErr=watch", ""), "app=down", Exit, "cancelTimers finish", "down=watch@shutdownApplication:watch -appStarting"},

	{"the start was cancelled and has worked: dial again, and keep it", ShutdownApplication, connLostUp, "app=up", WaitForAgent, "cancelTimers detach armRetry#1 armDeadline=waitForAgent", "app -appStarting"},
	{"the start has worked: wait for the agent", ShutdownApplication, sa("build=2:start/succeeded agent=a@1:ready", ""), "app=up", WaitForAgent, "cancelTimers detach armDeadline=waitForAgent", "app -appStarting"},
	{"the start has worked: follow the new build", ShutdownApplication, sa("build=2:start/running agent=a@1:ready", ""), "app=up", WaitForWorkspaceStarted, "cancelTimers detach armDeadline=waitForWorkspaceStarted", "app -appStarting"},
	{"the start has worked: start the workspace", ShutdownApplication, "onStop=wait; " + sa("build=2:stop/succeeded agent=a@1:ready", ""), "app=up", WaitForWorkspaceStarted, "cancelTimers detach startWorkspace armDeadline=waitForWorkspaceStarted", "app starting -appStarting"},
	{"the start has worked and the build has failed: close it", ShutdownApplication, sa("build=2:start/failed agent=a@1:ready", ""), "app=up", ShutdownApplication, "closeApp", "down=failed@shutdownApplication:BuildError(2) app appClosing -appStarting"},
	{"the start has worked and the watch is lost: close it", ShutdownApplication, sa("build=1:start/succeeded agent=a@1:ready watch=lost watchErr=watch", ""), "app=up", ShutdownApplication, "closeApp", "down=watch@shutdownApplication:watch app appClosing -appStarting"},
}
